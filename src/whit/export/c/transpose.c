/* Axes in another order: stride belongs to x, in the order of the axes of y. */
static void $name(const $x *x, $x *y, const int32_t *shape, const int32_t *stride)
{
    for (int32_t a = 0; a < shape[0]; a++) {
        for (int32_t b = 0; b < shape[1]; b++) {
            for (int32_t c = 0; c < shape[2]; c++) {
                for (int32_t d = 0; d < shape[3]; d++) {
                    *y++ = x[a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]];
                }
            }
        }
    }
}
