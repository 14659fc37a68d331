/* IEEE binary16 to float. */
static float $name(const uint16_t *values, int32_t index)
{
    union { uint32_t bits; float number; } result;
    const uint32_t half = values[index];
    const uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 0) { /* zero and subnormal numbers: a multiple of 2^-24 */
        result.number = (float)fraction * 5.9604644775390625e-8f;
        result.bits |= (half & 0x8000U) << 16;
        return result.number;
    }
    result.bits = (half & 0x8000U) << 16 | fraction << 13;
    result.bits |= (exponent == 31 ? 255U : exponent + 112U) << 23;
    return result.number;
}
