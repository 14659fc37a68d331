/* Axes in another order: stride belongs to x, in the order of the axes of y. */
static void transpose_signs(const uint32_t *x, uint32_t *y, const int32_t *shape,
                            const int32_t *stride)
{
    int32_t i = 0;
    for (int32_t a = 0; a < shape[0]; a++) {
        for (int32_t b = 0; b < shape[1]; b++) {
            for (int32_t c = 0; c < shape[2]; c++) {
                const int32_t row = a * stride[0] + b * stride[1] + c * stride[2];
                for (int32_t d = 0; d < shape[3]; d++, i++) {
                    put_sign(y, i, sign_bit(x, row + d * stride[3]));
                }
            }
        }
    }
}
