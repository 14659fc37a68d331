/* x $operator z; z has stride 0 along the axes in which it is repeated. */
static void $name(const float *x, const float *z, float *y, const int32_t *shape,
                  const int32_t *stride)
{
    int32_t i = 0;
    for (int32_t a = 0; a < shape[0]; a++) {
        for (int32_t b = 0; b < shape[1]; b++) {
            for (int32_t c = 0; c < shape[2]; c++) {
                const float *row = z + a * stride[0] + b * stride[1] + c * stride[2];
                for (int32_t d = 0; d < shape[3]; d++, i++) {
                    y[i] = x[i] $operator row[d * stride[3]];
                }
            }
        }
    }
}
