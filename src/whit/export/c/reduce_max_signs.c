/* Maximum over the axes of stride 0: -1 only where all are -1. */
static void reduce_max_signs(const uint32_t *x, uint32_t *y, const int32_t *shape,
                             const int32_t *stride, int32_t results)
{
    int32_t i = 0;
    for (int32_t k = 0; k < results; k++) {
        put_sign(y, k, 1);
    }
    for (int32_t a = 0; a < shape[0]; a++) {
        for (int32_t b = 0; b < shape[1]; b++) {
            for (int32_t c = 0; c < shape[2]; c++) {
                for (int32_t d = 0; d < shape[3]; d++, i++) {
                    const int32_t k = a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
                    if (!sign_bit(x, i)) {
                        y[k >> 5] &= ~(UINT32_C(1) << (k & 31));
                    }
                }
            }
        }
    }
}
