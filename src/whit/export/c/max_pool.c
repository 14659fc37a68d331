/* Maximum over the part of each window that lies inside. */
static void $name(const $x *x, $x *y, const struct pool_shape *s)
{
    for (int32_t i = 0; i < s->channels * s->out_h * s->out_w; i++) {
        const $x *image = x + i / (s->out_h * s->out_w) * s->height * s->width;
        const int32_t top = i / s->out_w % s->out_h * s->stride_h - s->pad_h;
        const int32_t left = i % s->out_w * s->stride_w - s->pad_w;
        $x best = image[larger(top, 0) * s->width + larger(left, 0)];
        for (int32_t iy = larger(top, 0); iy < smaller(top + s->size_h, s->height); iy++) {
            for (int32_t ix = larger(left, 0); ix < smaller(left + s->size_w, s->width); ix++) {
                const $x value = image[iy * s->width + ix];
                best = value > best$or_nan ? value : best;
            }
        }
        y[i] = best;
    }
}
