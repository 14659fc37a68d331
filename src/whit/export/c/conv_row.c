/* One output channel; x holds the channels of its group. */
static void $name(const $x *x, const $w *weight, $y *y, const struct conv_shape *s)
{
    for (int32_t p = 0; p < s->out_h * s->out_w; p++) {
        const int32_t top = p / s->out_w * s->stride_h - s->pad_h;
        const int32_t left = p % s->out_w * s->stride_w - s->pad_w;
        const $w *tap = weight;
        $sum sum = 0;
        for (int32_t c = 0; c < s->channels; c++) {
            for (int32_t ky = 0; ky < s->size_h; ky++) {
                const int32_t iy = top + ky * s->dilation;
                for (int32_t kx = 0; kx < s->size_w; kx++) {
                    const int32_t ix = left + kx * s->dilation;
                    const int inside = iy >= 0 && iy < s->height && ix >= 0 && ix < s->width;
                    sum += ($sum)*tap++ *
                           ($sum)(inside ? x[(c * s->height + iy) * s->width + ix]
                                         : ($x)s->pad_value);
                }
            }
        }
        y[p] = ($y)sum;
    }
}
