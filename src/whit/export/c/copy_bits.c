/* Copy bits from any place to the start of a row of words. */
static void copy_bits(const uint32_t *x, int32_t first, int32_t count, uint32_t *y)
{
    for (int32_t k = 0; k < count; k++) {
        put_sign(y, k, sign_bit(x, first + k));
    }
}
