/* min(max(x, low), high), NaN stays NaN. */
static void clamp(const float *x, float *y, int32_t count, float low, float high)
{
    for (int32_t i = 0; i < count; i++) {
        const float raised = x[i] < low ? low : x[i];
        y[i] = raised > high ? high : raised;
    }
}
