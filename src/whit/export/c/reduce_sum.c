/* Sum over the axes of stride 0, divided by a number. */
static void reduce_sum(const float *x, float *y, const int32_t *shape, const int32_t *stride,
                       int32_t results, float divisor)
{
    for (int32_t i = 0; i < results; i++) {
        y[i] = 0;
    }
    for (int32_t a = 0; a < shape[0]; a++) {
        for (int32_t b = 0; b < shape[1]; b++) {
            for (int32_t c = 0; c < shape[2]; c++) {
                for (int32_t d = 0; d < shape[3]; d++) {
                    y[a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]] += *x++;
                }
            }
        }
    }
    for (int32_t i = 0; i < results; i++) {
        y[i] /= divisor;
    }
}
