/* Maximum over the axes of stride 0. */
static void $name(const $x *x, $x *y, const int32_t *shape, const int32_t *stride)
{
    for (int32_t a = 0; a < shape[0]; a++) {
        for (int32_t b = 0; b < shape[1]; b++) {
            for (int32_t c = 0; c < shape[2]; c++) {
                for (int32_t d = 0; d < shape[3]; d++) {
                    $x *best = y + a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
                    const int first = (a == 0 || stride[0]) && (b == 0 || stride[1]) &&
                                      (c == 0 || stride[2]) && (d == 0 || stride[3]);
                    const $x value = *x++;
                    *best = first || value > *best$or_nan ? value : *best;
                }
            }
        }
    }
}
