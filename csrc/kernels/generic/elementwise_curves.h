// Smooth functions in float32 without branches, so that every compiler turns them into vectors.
// Included once by each instruction set, inside its anonymous namespace.

// e^x to about 1e-7 of itself: 2^n e^r, r within half a binary logarithm, e^r by its series.
inline float exponential(float x) {
    const float low = -87.3f, high = 88.72f;
    float y = x < low ? low : x;
    y = y > high ? high : y;
    const float n = __builtin_rintf(y * 1.44269504f);
    const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
    float series = 1.9875691500e-4f;
    series = series * r + 1.3981999507e-3f;
    series = series * r + 8.3334519073e-3f;
    series = series * r + 4.1665795894e-2f;
    series = series * r + 1.6666665459e-1f;
    series = series * r + 5.0000001201e-1f;
    const float fraction = (series * r * r + r) + 1.0f;
    // 2^n in two factors: n = 128 alone would leave the exponent.
    const int32_t whole = static_cast<int32_t>(n), half = whole / 2;
    const int32_t first = (half + 127) << 23, second = (whole - half + 127) << 23;
    float a, b;
    __builtin_memcpy(&a, &first, 4);
    __builtin_memcpy(&b, &second, 4);
    const float power = fraction * a * b;
    const float limited = x < low ? 0.0f : x > high ? __builtin_inff() : power;
    return x != x ? x : limited;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

inline float hyperbolic_tangent(float x) {
    const float size = __builtin_fabsf(x);
    const float far = 1.0f - 2.0f / (exponential(2.0f * size) + 1.0f);
    const float square = x * x;
    float series = -5.70498872745e-3f;
    series = series * square + 2.06390887954e-2f;
    series = series * square - 5.37397155531e-2f;
    series = series * square + 1.33314422036e-1f;
    series = series * square - 3.33332819422e-1f;
    const float near = series * square * x + x;
    const float result = size < 0.625f ? near : __builtin_copysignf(far, x);
    return x != x ? x : result;
}

// x Phi(x); the error function by formula 7.1.26 of Abramowitz and Stegun, 1.5e-7 at most.
inline float gaussian_unit(float x) {
    const float size = __builtin_fabsf(x) * 0.70710678f;
    const float t = 1.0f / (1.0f + 0.3275911f * size);
    float series = 1.061405429f;
    series = series * t - 1.453152027f;
    series = series * t + 1.421413741f;
    series = series * t - 0.284496736f;
    series = series * t + 0.254829592f;
    const float tail = 0.5f * series * t * exponential(-size * size);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

inline float gaussian_unit_by_tanh(float x) {
    const float inner = 0.79788456f * (x + 0.044715f * (x * x * x));
    return x * 0.5f * (hyperbolic_tangent(inner) + 1.0f);
}

inline float exponential_unit(float x, float alpha) {
    const float below = alpha * (exponential(x < 0.0f ? x : 0.0f) - 1.0f);
    return x < 0.0f ? below : x;
}

inline float hard_sigmoid(float x) {
    float line = x / 6.0f + 0.5f;
    line = line < 0.0f ? 0.0f : line;
    return line > 1.0f ? 1.0f : line;
}

inline float softplus(float x) {
    const float positive = x > 0.0f ? x : 0.0f;
    return x != x ? x : positive + __builtin_log1pf(exponential(-__builtin_fabsf(x)));
}

template <typename Function>
inline void each(const Block &x, Function function) {
    for (size_t row = 0; row < x.rows; ++row) {
        float *values = x.floats(row);
        for (size_t i = 0; i < x.columns; ++i) values[i] = function(values[i]);
    }
}

void curve(const Block &x, size_t mode, float alpha) {
    switch (mode) {
        case kSigmoid: return each(x, [](float v) { return sigmoid(v); });
        case kTanh: return each(x, [](float v) { return hyperbolic_tangent(v); });
        case kSilu: return each(x, [](float v) { return v * sigmoid(v); });
        case kGelu: return each(x, [](float v) { return gaussian_unit(v); });
        case kGeluTanh: return each(x, [](float v) { return gaussian_unit_by_tanh(v); });
        case kElu: return each(x, [alpha](float v) { return exponential_unit(v, alpha); });
        case kHardSigmoid: return each(x, [](float v) { return hard_sigmoid(v); });
        case kHardSwish: return each(x, [](float v) { return v * hard_sigmoid(v); });
        case kSoftplus: return each(x, [](float v) { return softplus(v); });
        case kAbsolute: return each(x, [](float v) { return __builtin_fabsf(v); });
        case kSquare: return each(x, [](float v) { return v * v; });
        default: return each(x, [](float v) { return exponential(v); });
    }
}
