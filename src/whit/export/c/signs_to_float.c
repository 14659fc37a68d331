/* Bits to the numbers +1 and -1. */
static void signs_to_float(const uint32_t *x, float *y, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        y[i] = sign_bit(x, i) ? -1.0f : 1.0f;
    }
}
