/* Number of 1 bits of a word. */
static int32_t count_bits(uint32_t word)
{
#if defined(__POPCNT__) || defined(__aarch64__) || defined(__riscv_zbb)
    return __builtin_popcountl((unsigned long)word);
#else
    word -= word >> 1 & UINT32_C(0x55555555);
    word = (word & UINT32_C(0x33333333)) + (word >> 2 & UINT32_C(0x33333333));
    word = (word + (word >> 4)) & UINT32_C(0x0F0F0F0F);
    return (int32_t)(word * UINT32_C(0x01010101) >> 24);
#endif
}
