/* Add the softmax of one network's scores. */
static void add_softmax(const float *scores, float *total, int32_t count)
{
    float highest = scores[0], sum = 0;
    for (int32_t i = 0; i < count; i++) {
        highest = scores[i] > highest ? scores[i] : highest;
    }
    for (int32_t i = 0; i < count; i++) {
        sum += expf(scores[i] - highest);
    }
    for (int32_t i = 0; i < count; i++) {
        total[i] += expf(scores[i] - highest) / sum;
    }
}
