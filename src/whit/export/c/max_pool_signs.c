/* -1 only where the whole window is -1. */
static void max_pool_signs(const uint32_t *x, uint32_t *y, const struct pool_shape *s)
{
    for (int32_t i = 0; i < s->channels * s->out_h * s->out_w; i++) {
        const int32_t image = i / (s->out_h * s->out_w) * s->height * s->width;
        const int32_t top = i / s->out_w % s->out_h * s->stride_h - s->pad_h;
        const int32_t left = i % s->out_w * s->stride_w - s->pad_w;
        uint32_t all = 1;
        for (int32_t iy = larger(top, 0); iy < smaller(top + s->size_h, s->height); iy++) {
            for (int32_t ix = larger(left, 0); ix < smaller(left + s->size_w, s->width); ix++) {
                all &= sign_bit(x, image + iy * s->width + ix);
            }
        }
        put_sign(y, i, all);
    }
}
