/* (x - shift) * factor rounded half to even and clamped; NaN gives low. */
static void $name(const float *x, $y *y, int32_t count, float shift, float factor, int32_t low,
                  int32_t high)
{
    for (int32_t i = 0; i < count; i++) {
        const float centred = x[i] - shift;
        const float value = centred * factor;
        int32_t number = low;
        if (value >= (float)high) {
            number = high;
        } else if (value > (float)low) {
            number = (int32_t)value;
            number -= value < (float)number;
            const float rest = value - (float)number;
            number += rest > 0.5f || (rest == 0.5f && number % 2 != 0);
        }
        y[i] = ($y)number;
    }
}
