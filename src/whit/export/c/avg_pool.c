/* Mean over each window: zeros outside count, or, with inside_only, they do not. */
static void avg_pool(const float *x, float *y, const struct pool_shape *s, int inside_only)
{
    for (int32_t i = 0; i < s->channels * s->out_h * s->out_w; i++) {
        const float *image = x + i / (s->out_h * s->out_w) * s->height * s->width;
        const int32_t top = i / s->out_w % s->out_h * s->stride_h - s->pad_h;
        const int32_t left = i % s->out_w * s->stride_w - s->pad_w;
        int32_t inside = 0;
        float sum = 0;
        for (int32_t iy = larger(top, 0); iy < smaller(top + s->size_h, s->height); iy++) {
            for (int32_t ix = larger(left, 0); ix < smaller(left + s->size_w, s->width); ix++) {
                sum += image[iy * s->width + ix];
                inside++;
            }
        }
        y[i] = sum / (float)(inside_only ? inside : s->size_h * s->size_w);
    }
}
