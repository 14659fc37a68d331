/* What a pooling reads and writes. */
struct pool_shape {
    int32_t channels, height, width;
    int32_t size_h, size_w, stride_h, stride_w, pad_h, pad_w;
    int32_t out_h, out_w;
};
