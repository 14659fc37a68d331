/* x $operator constant, one constant for each of count channels of inner numbers. */
static void $name(const float *x, float *y, const float *constants, int32_t outer, int32_t count,
                  int32_t inner)
{
    int32_t i = 0;
    for (int32_t o = 0; o < outer; o++) {
        for (int32_t c = 0; c < count; c++) {
            for (int32_t j = 0; j < inner; j++, i++) {
                y[i] = x[i] $operator constants[c];
            }
        }
    }
}
