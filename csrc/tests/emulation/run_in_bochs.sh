#!/usr/bin/env bash
# Runs a statically linked program in the Bochs emulator, whose processor has AVX-512:
#   run_in_bochs.sh PROGRAM [ARGUMENT ...]
# Prints what it prints and ends with its exit status; 124 after WHIT_EMULATION_SECONDS (300).
# WHIT_EMULATED_CPU: tigerlake (all levels), corei7_skylake_x (AVX-512 BW), corei7_haswell_4770
# (AVX2), ... (`bochs --help cpu`). Needs bochs, gcc and binutils; nothing is booted, see kernel.c.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
program=$1
shift
seconds=${WHIT_EMULATION_SECONDS:-300}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

gcc -c -o "$work/start.o" "$here/start.S"
gcc -std=c17 -c -O2 -Wall -Wextra -ffreestanding -fno-pic -fno-stack-protector -mno-red-zone \
  -mgeneral-regs-only -fcf-protection=none -fno-asynchronous-unwind-tables \
  -o "$work/kernel.o" "$here/kernel.c"
ld -nostdlib -z noexecstack --no-warn-rwx-segments -T "$here/kernel.ld" -o "$work/kernel" "$work/start.o" "$work/kernel.o"
objcopy -O binary -j .rom "$work/kernel" "$work/rom"

# The disk: a line with the size and the arguments, then the program, filled up to whole cylinders.
strip -o "$work/program" "$program"
size=$(stat -c %s "$work/program")
{ printf '%s %s\n' "$size" "$*"; } > "$work/disk"
truncate -s 512 "$work/disk"
cat "$work/program" >> "$work/disk"
cylinder=$((16 * 63 * 512))
truncate -s $(((size + 512 + cylinder) / cylinder * cylinder)) "$work/disk"

cat > "$work/bochsrc" <<END
display_library: rfb, options="timeout=0"
megs: 512
romimage: file=$work/rom
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=disk, mode=flat, path=$work/disk, cylinders=0
cpu: model=${WHIT_EMULATED_CPU:-tigerlake}, ips=100000000, reset_on_triple_fault=0
clock: sync=none
port_e9_hack: enabled=1
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
plugin_ctrl: speaker=0, gameport=0, parallel=0, serial=0, extfpuirq=0
log: $work/log
END
echo continue > "$work/commands"  # Debian's Bochs has the debugger built in

timeout "$seconds" bochs -q -f "$work/bochsrc" -rc "$work/commands" < /dev/null 2> "$work/errors" |
  awk -v found="$work/status" '
    /^exit status [0-9]+$/ { print $3 > found; exit }
    running { print; fflush() }
    /^-- emulated$/ { running = 1 }' || true
[ -s "$work/status" ] && exit "$(cat "$work/status")"
echo "the emulated program did not end within $seconds s" >&2
tail -5 "$work/log" >&2
exit 124
