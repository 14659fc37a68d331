/* Runs one statically linked Linux program on the bare emulated machine: a loader and the twenty
 * system calls that a C++ program without files and threads makes. Booting a real kernel takes Bochs
 * minutes; this takes milliseconds. Output goes to port 0xE9, which Bochs prints.
 *
 * The disk holds a text line "<bytes of the program> <arguments>" in its first sector, then the
 * program. Memory: kernel from 2 MiB, program and heap from 4, mappings from 256, the file from 448,
 * stack below 511 MiB.
 */
#include <stddef.h>
#include <stdint.h>

enum { kSector = 512, kMaxArguments = 32 };
static const uint64_t kMappings = 256u << 20, kFile = 448u << 20, kStackTop = 511u << 20;

struct call { uint64_t number, argument[6]; };
struct fault { uint64_t vector, error, address; };
struct program_header {
    uint32_t type, flags;
    uint64_t offset, address, physical, file_bytes, memory_bytes, alignment;
};
struct elf_header {
    uint8_t identity[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, headers, sections;
    uint32_t flags;
    uint16_t bytes, header_bytes, header_count, section_bytes, section_count, names;
};
struct gate { uint16_t low, selector, kind, middle; uint32_t high, zero; };

extern const uint8_t fault_stubs[], system_call_entry[];
void enter_program(uint64_t entry, uint64_t stack);
void kernel_main(void);
uint64_t system_call(const struct call *call);
void fault(const struct fault *found);

static uint64_t heap_begin, heap_end, next_mapping;
static struct gate gates[32];
static char first_line[kSector];

/* ---- the machine ------------------------------------------------------------------------------ */

static void port_write(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t port_read(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void set_register(uint32_t number, uint64_t value) {
    __asm__ volatile("wrmsr" : : "c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t time_stamp(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void fill(uint64_t to, uint8_t value, uint64_t bytes) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
}

static void copy(uint64_t to, uint64_t from, uint64_t bytes) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

/* First ATA disk, by port. */
static void read_sector(uint32_t sector, uint64_t to) {
    uint64_t words = kSector / 2;
    port_write(0x1F6, 0xE0 | (sector >> 24 & 0xF));
    port_write(0x1F2, 1);
    port_write(0x1F3, (uint8_t)sector);
    port_write(0x1F4, (uint8_t)(sector >> 8));
    port_write(0x1F5, (uint8_t)(sector >> 16));
    port_write(0x1F7, 0x20);
    while ((port_read(0x1F7) & 0x88) != 0x08) {
    }
    __asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"((uint16_t)0x1F0) : "memory");
}

/* ---- output ----------------------------------------------------------------------------------- */

static void say(const char *text) {
    for (; *text != '\0'; ++text) port_write(0xE9, (uint8_t)*text);
}

static void say_hexadecimal(uint64_t value) {
    for (int shift = 60; shift >= 0; shift -= 4)
        port_write(0xE9, (uint8_t) "0123456789abcdef"[value >> shift & 15]);
}

static void turn_off(uint64_t status) {
    say("exit status ");
    if (status >= 100) port_write(0xE9, (uint8_t)('0' + status / 100));
    if (status >= 10) port_write(0xE9, (uint8_t)('0' + status / 10 % 10));
    port_write(0xE9, (uint8_t)('0' + status % 10));
    say("\n");
    for (const char *letter = "Shutdown"; *letter != '\0'; ++letter)
        port_write(0x8900, (uint8_t)*letter);
    for (;;) __asm__ volatile("hlt");
}

void fault(const struct fault *found) {
    uint64_t page;
    __asm__("movq %%cr2, %0" : "=r"(page));
    say("exception ");
    say_hexadecimal(found->vector);
    say(" at ");
    say_hexadecimal(found->address);
    say(", last page fault at ");
    say_hexadecimal(page);
    say(", code");
    for (int i = 0; i < 12 && found->address >= 2u << 20 && found->address < 1u << 30; ++i) {
        const uint8_t byte = ((const uint8_t *)found->address)[i];
        say(" ");
        port_write(0xE9, (uint8_t) "0123456789abcdef"[byte >> 4]);
        port_write(0xE9, (uint8_t) "0123456789abcdef"[byte & 15]);
    }
    say("\n");
    turn_off(128 + 11);
}

/* ---- system calls ------------------------------------------------------------------------------ */

static uint64_t write_bytes(const uint8_t *bytes, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) port_write(0xE9, bytes[i]);
    return count;
}

static uint64_t write_vectors(const uint64_t *vectors, uint64_t count) {
    uint64_t written = 0;
    for (uint64_t i = 0; i < count; ++i)
        written += write_bytes((const uint8_t *)vectors[2 * i], vectors[2 * i + 1]);
    return written;
}

static uint64_t move_heap_end(uint64_t end) {
    if (end < heap_begin || end > kMappings) return heap_end;
    if (end < heap_end) fill(end, 0, heap_end - end);
    return heap_end = end;
}

static uint64_t map(uint64_t bytes) {
    const uint64_t begin = next_mapping, end = (begin + bytes + 4095) & ~(uint64_t)4095;
    if (end > kFile) return (uint64_t)-12; /* ENOMEM */
    next_mapping = end;
    return begin;
}

/* The memory beyond the last mapping must be zero when it is mapped again. */
static uint64_t unmap(uint64_t begin, uint64_t bytes) {
    if (((begin + bytes + 4095) & ~(uint64_t)4095) != next_mapping) return 0;
    fill(begin, 0, next_mapping - begin);
    next_mapping = begin;
    return 0;
}

static uint64_t tell_time(uint64_t *seconds_nanoseconds) {
    const uint64_t nanoseconds = time_stamp() * 10; /* 100 million instructions a second */
    seconds_nanoseconds[0] = nanoseconds / 1000000000;
    seconds_nanoseconds[1] = nanoseconds % 1000000000;
    return 0;
}

static uint64_t set_thread_pointer(uint64_t code, uint64_t value) {
    if (code != 0x1002) return (uint64_t)-22; /* ARCH_SET_FS only */
    set_register(0xC0000100, value);
    return 0;
}

uint64_t system_call(const struct call *call) {
    const uint64_t *argument = call->argument;
    switch (call->number) {
        case 1: return write_bytes((const uint8_t *)argument[1], argument[2]);
        case 20: return write_vectors((const uint64_t *)argument[1], argument[2]);
        case 9: return map(argument[1]);
        case 10: return 0; /* mprotect */
        case 11: return unmap(argument[0], argument[1]);
        case 12: return move_heap_end(argument[0]);
        case 28: return 0; /* madvise */
        case 13: case 14: return 0; /* signals: none ever comes */
        case 24: return 0; /* sched_yield */
        case 39: case 186: return 1; /* getpid, gettid */
        case 158: return set_thread_pointer(argument[0], argument[1]);
        case 202: return 0; /* futex: nobody to wait for */
        case 218: return 1; /* set_tid_address */
        case 228: return tell_time((uint64_t *)argument[1]);
        case 273: return 0; /* set_robust_list */
        case 318: fill(argument[0], 0x5A, argument[1]); return argument[1]; /* getrandom */
        case 60: case 231: turn_off(argument[0] & 255); return 0;
        case 200: case 234: turn_off(128 + 6); return 0; /* abort */
        default: return (uint64_t)-38; /* ENOSYS */
    }
}

/* ---- start ------------------------------------------------------------------------------------- */

static void catch_faults(void) {
    const struct { uint16_t limit; uint64_t base; } __attribute__((packed)) pointer = {
        sizeof gates - 1, (uint64_t)gates};
    for (int i = 0; i < 32; ++i) {
        const uint64_t stub = (uint64_t)fault_stubs + 16u * (unsigned)i;
        const struct gate gate = {(uint16_t)stub, 0x18, 0x8E00, (uint16_t)(stub >> 16), 0, 0};
        gates[i] = gate;
    }
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static void catch_system_calls(void) {
    set_register(0xC0000081, (uint64_t)0x18 << 32);
    set_register(0xC0000082, (uint64_t)system_call_entry);
    set_register(0xC0000084, 0x400); /* clear the direction flag */
}

static void load_program(const struct elf_header *header) {
    if (header->type != 2 || header->machine != 62) {
        say("not a statically linked x86-64 program at a fixed address (-static -no-pie)\n");
        turn_off(126);
    }
    const struct program_header *part = (const struct program_header *)(kFile + header->headers);
    uint64_t end = 0;
    for (int i = 0; i < header->header_count; ++i, ++part) {
        if (part->type != 1) continue;
        copy(part->address, kFile + part->offset, part->file_bytes);
        if (part->address + part->memory_bytes > end) end = part->address + part->memory_bytes;
    }
    heap_begin = heap_end = (end + 4095) & ~(uint64_t)4095;
}

/* argc, arguments, environment (none) and auxiliary vector, as the System V ABI wants them. */
static uint64_t build_stack(char *line, const struct elf_header *elf) {
    uint64_t *slot = (uint64_t *)(kStackTop - 4096), count = 1;
    slot[1] = (uint64_t) "program";
    for (char *at = line; *at != '\n' && *at != '\0' && count < kMaxArguments;) {
        if (*at == ' ') { *at++ = '\0'; continue; }
        if (at == line || at[-1] == '\0') slot[1 + count++] = (uint64_t)at;
        ++at;
        if (*at == '\n') *at = '\0';
    }
    slot[0] = count;
    const uint64_t auxiliary[] = {6, 4096, 3, kFile + elf->headers, 4, elf->header_bytes, 5, elf->header_count,
                                  9, elf->entry, 25, (uint64_t)elf, 23, 0, 0, 0};
    uint64_t *next = slot + 1 + count;
    *next++ = 0;
    *next++ = 0;
    for (size_t i = 0; i < sizeof auxiliary / sizeof auxiliary[0]; ++i) *next++ = auxiliary[i];
    return (uint64_t)slot;
}

void kernel_main(void) {
    say("\n-- emulated\n");
    catch_faults();
    catch_system_calls();
    read_sector(0, (uint64_t)first_line);
    char *at = first_line;
    uint64_t bytes = 0;
    for (; *at >= '0' && *at <= '9'; ++at) bytes = bytes * 10 + (uint64_t)(*at - '0');
    for (uint64_t i = 0; i * kSector < bytes; ++i)
        read_sector((uint32_t)i + 1, kFile + i * kSector);
    const struct elf_header *elf = (const struct elf_header *)kFile;
    load_program(elf);
    next_mapping = kMappings;
    enter_program(elf->entry, build_stack(at, elf));
}
