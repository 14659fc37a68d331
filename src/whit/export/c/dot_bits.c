/* Product of two rows of signs. */
static int32_t dot_bits(const uint32_t *a, const uint32_t *b, int32_t columns)
{
    int32_t differing = 0;
    for (int32_t k = 0; k < (columns + 31) / 32; k++) {
        differing += count_bits(a[k] ^ b[k]);
    }
    return columns - 2 * differing;
}
