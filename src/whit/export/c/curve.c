/* The curve $function. */
static void $name(const float *input, float *y, int32_t count$alpha)
{
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        y[i] = $formula;
    }
}
