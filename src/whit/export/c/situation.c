/* 0 where the first network is sure; else 1 + the largest of the deciding scores, which stand
   behind the class scores, or 1 + the likeliest group of classes, or 1. */
static int32_t situation(const float *scores, float *p, int32_t count, float temperature,
                         float margin, const uint8_t *group_of, int32_t known, int32_t groups,
                         int32_t deciding)
{
    float highest = scores[0] / temperature, sum = 0, largest = 0, second = 0, best = -1;
    int32_t result = 1;
    for (int32_t i = 0; i < count; i++) {
        p[i] = scores[i] / temperature;
        highest = p[i] > highest ? p[i] : highest;
    }
    for (int32_t i = 0; i < count; i++) {
        p[i] = expf(p[i] - highest);
        sum += p[i];
    }
    for (int32_t i = 0; i < count; i++) {
        p[i] /= sum;
        second = p[i] > largest ? largest : p[i] > second ? p[i] : second;
        largest = p[i] > largest ? p[i] : largest;
    }
    if (largest - second >= margin) {
        return 0;
    }
    for (int32_t i = 1; i < deciding; i++) {
        const float one = scores[count + i], most = scores[count + result - 1];
        result = most == most && (one > most || one != one) ? 1 + i : result;
    }
    for (int32_t g = 0; g < groups; g++) {
        float inside = 0;
        for (int32_t i = 0; i < known; i++) {
            inside += group_of[i] == g ? p[i] : 0;
        }
        if (inside > best) {
            best = inside;
            result = 1 + g;
        }
    }
    return result;
}
