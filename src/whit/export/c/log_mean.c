/* ln(max(total / networks, 1e-12)). */
static void log_mean(float *total, int32_t count, float networks)
{
    for (int32_t i = 0; i < count; i++) {
        const float mean = total[i] / networks;
        total[i] = logf(mean > 1e-12f ? mean : 1e-12f);
    }
}
