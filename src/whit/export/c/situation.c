/* 0 where the first network is sure, else 1 + the likeliest group of classes (1 without groups). */
static int32_t situation(const float *scores, float *p, int32_t count, float margin,
                         const uint8_t *group_of, int32_t known, int32_t groups)
{
    float largest = 0, second = 0, best = -1;
    int32_t result = 1;
    for (int32_t i = 0; i < count; i++) {
        p[i] = 0;
    }
    add_softmax(scores, p, count);
    for (int32_t i = 0; i < count; i++) {
        second = p[i] > largest ? largest : p[i] > second ? p[i] : second;
        largest = p[i] > largest ? p[i] : largest;
    }
    if (largest - second >= margin) {
        return 0;
    }
    for (int32_t g = 0; g < groups; g++) {
        float sum = 0;
        for (int32_t i = 0; i < known; i++) {
            sum += group_of[i] == g ? p[i] : 0;
        }
        if (sum > best) {
            best = sum;
            result = 1 + g;
        }
    }
    return result;
}
