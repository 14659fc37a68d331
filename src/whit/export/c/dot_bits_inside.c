/* Product of two rows of signs over the marked columns; the others count as 0. */
static int32_t dot_bits_inside(const uint32_t *a, const uint32_t *b, const uint32_t *inside,
                               int32_t columns)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < (columns + 31) / 32; k++) {
        sum += count_bits(inside[k]) - 2 * count_bits((a[k] ^ b[k]) & inside[k]);
    }
    return sum;
}
