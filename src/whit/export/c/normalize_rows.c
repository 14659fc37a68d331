/* (x - mean) / sqrt(variance + epsilon) over each row. */
static void normalize_rows(const float *x, float *y, int32_t rows, int32_t count, float epsilon)
{
    for (int32_t r = 0; r < rows; r++, x += count, y += count) {
        float mean = 0, variance = 0;
        for (int32_t k = 0; k < count; k++) {
            mean += x[k];
        }
        mean /= (float)count;
        for (int32_t k = 0; k < count; k++) {
            variance += (x[k] - mean) * (x[k] - mean);
        }
        variance = sqrtf(variance / (float)count + epsilon);
        for (int32_t k = 0; k < count; k++) {
            y[k] = (x[k] - mean) / variance;
        }
    }
}
