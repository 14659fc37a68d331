/* e^(x - maximum) / sum along one axis. */
static void softmax(const float *x, float *y, int32_t outer, int32_t count, int32_t inner)
{
    for (int32_t o = 0; o < outer * inner; o++) {
        const int32_t first = o / inner * count * inner + o % inner, end = first + count * inner;
        float highest = x[first], sum = 0;
        for (int32_t i = first; i < end; i += inner) {
            highest = x[i] > highest ? x[i] : highest;
        }
        for (int32_t i = first; i < end; i += inner) {
            y[i] = expf(x[i] - highest);
            sum += y[i];
        }
        for (int32_t i = first; i < end; i += inner) {
            y[i] /= sum;
        }
    }
}
