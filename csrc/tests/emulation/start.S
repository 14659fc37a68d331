# From the reset of the processor to 64-bit C, in place of a BIOS. The ROM of 64 KiB lies at 0xF0000;
# it copies itself to kernel.ld's address and goes on there.
        .set    rom, 0xF0000
        .set    base, 0x200000

        .section .reset, "ax"           # the last 16 bytes of the ROM
        .code16
        ljmpl   $0xF000, $(start16 - base)

        .section .start, "ax"
        .globl  start16
start16:
        cli
        lgdtl   %cs:(rom_gdt_pointer - base)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $0x08, $(start32 - base + rom)

        .code32
start32:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        cld
        movl    $rom, %esi
        movl    $base, %edi
        movl    $0x4000, %ecx
        rep movsl
        ljmpl   $0x08, $copied

copied:                                 # pages of 2 MiB up to 1 GiB; the first stays unmapped
        lgdt    gdt_pointer
        movl    $(page_directories + 3), page_table
        movl    $(page_directory + 3), page_directories
        movl    $1, %ecx
1:      movl    %ecx, %eax
        shll    $21, %eax
        orl     $0x83, %eax
        movl    %eax, page_directory(, %ecx, 8)
        incl    %ecx
        cmpl    $512, %ecx
        jb      1b
        movl    $0x40620, %eax          # PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
        movl    %eax, %cr4
        movl    $page_table, %eax
        movl    %eax, %cr3
        movl    $0xC0000080, %ecx       # EFER: SYSCALL, long mode
        movl    $0x101, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0x80010023, %eax       # paging, write protection, native FPU errors
        movl    %eax, %cr0
        ljmpl   $0x18, $start64

        .code64
start64:
        movl    $0x20, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        xorl    %ecx, %ecx              # XCR0: what this processor offers of x87, SSE, AVX, AVX-512
        movl    $0xD, %eax
        cpuid
        andl    $0xE7, %eax
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        xsetbv
        leaq    kernel_stack_end(%rip), %rsp
        call    kernel_main

# The program runs in ring 0 too, so SYSCALL changes nothing but the address and the flags.
        .text
        .globl  system_call_entry
system_call_entry:
        movq    %rsp, program_stack(%rip)
        leaq    kernel_stack_end(%rip), %rsp
        pushq   %rcx
        pushq   %r11
        pushq   %r9
        pushq   %r8
        pushq   %r10
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %rax
        movq    %rsp, %rdi
        subq    $8, %rsp
        call    system_call             # (struct: number and six arguments)
        addq    $16, %rsp
        popq    %rdi
        popq    %rsi
        popq    %rdx
        popq    %r10
        popq    %r8
        popq    %r9
        popfq
        popq    %rcx
        movq    program_stack(%rip), %rsp
        jmp     *%rcx

        .globl  enter_program           # (entry, stack)
enter_program:
        movq    %rsi, %rsp
        xorl    %edx, %edx
        jmp     *%rdi

# One stub of 16 bytes for each exception, all with an error code.
        .globl  fault_stubs
        .balign 16
fault_stubs:
        .set    vector, 0
        .rept   32
        .if     !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
        pushq   $0
        .endif
        pushq   $vector
        jmp     fault_entry
        .balign 16
        .set    vector, vector + 1
        .endr
fault_entry:
        movq    %rsp, %rdi              # vector, error code, address
        leaq    kernel_stack_end(%rip), %rsp
        call    fault

        .section .rodata
        .balign 8
gdt:    .quad   0
        .quad   0x00CF9A000000FFFF      # 0x08 code, 32 bits
        .quad   0x00CF92000000FFFF      # 0x10 data
        .quad   0x00AF9A000000FFFF      # 0x18 code, 64 bits
        .quad   0x00CF92000000FFFF      # 0x20 data
rom_gdt_pointer:
        .word   39
        .long   gdt - base + rom
gdt_pointer:
        .word   39
        .long   gdt

        .bss
        .balign 4096
page_table:             .skip 4096
page_directories:       .skip 4096
page_directory:         .skip 4096
                        .skip 65536
kernel_stack_end:       .skip 16
program_stack:          .skip 8
