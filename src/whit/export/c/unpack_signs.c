/* Bits to the numbers +1 and -1. */
static void unpack_signs(const uint32_t *x, int8_t *y, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        y[i] = sign_bit(x, i) ? -1 : 1;
    }
}
