/* x where x >= 0, else x * slope. */
static void leaky_relu(const float *x, float *y, const float *slopes, int32_t count, int32_t inner)
{
    for (int32_t c = 0, i = 0; c < count; c++) {
        for (int32_t j = 0; j < inner; j++, i++) {
            y[i] = x[i] >= 0 ? x[i] : x[i] * slopes[c];
        }
    }
}
