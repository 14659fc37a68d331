/* What a convolution reads and writes; channels are those of one group. */
struct conv_shape {
    int32_t channels, height, width;
    int32_t size_h, size_w, stride_h, stride_w, pad_h, pad_w, pad_value, dilation;
    int32_t out_h, out_w;
};
