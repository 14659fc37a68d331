/* A C program that runs a packed network: no Python, no torch.
 *
 *     cmake -S . -B build/c -DWHIT_BUILD_BINDING=OFF -DWHIT_BUILD_EXAMPLES=ON
 *     cmake --build build/c
 *     build/c/whit_predict digits.whit inputs.raw > outputs.raw
 *
 * inputs.raw: samples one after another, in the dtype of the network, as `array.tofile` writes them.
 * The outputs are float32 in the same order.
 */
#include <stdio.h>
#include <stdlib.h>

#include "whit.h"

static size_t product(size_t count, const size_t *axes)
{
    size_t total = 1;
    for (size_t axis = 0; axis < count; ++axis) {
        total *= axes[axis];
    }
    return total;
}

int main(int argc, char **argv)
{
    char error[WHIT_ERROR_BYTES];
    size_t axes[4];
    if (argc != 3) {
        fprintf(stderr, "usage: whit_predict network.whit inputs.raw > outputs.raw\n");
        return 2;
    }
    whit_program *program = whit_load_file(argv[1], 1, error);
    if (program == NULL) {
        fprintf(stderr, "%s: %s\n", argv[1], error);
        return 2;
    }
    const size_t item = whit_input_dtype(program) == WHIT_UINT8 ? 1 : 4;
    const size_t input_bytes = item * product(whit_input_axes(program, axes), axes);
    const size_t outputs = product(whit_output_axes(program, axes), axes);
    void *input = malloc(input_bytes);
    float *output = malloc(outputs * sizeof *output);
    FILE *file = fopen(argv[2], "rb");
    int status = input != NULL && output != NULL && file != NULL ? 0 : 2;
    if (status != 0) {
        fprintf(stderr, "%s cannot be read\n", argv[2]);
    }
    size_t read = 0;
    while (status == 0 && (read = fread(input, 1, input_bytes, file)) == input_bytes) {
        if (whit_run(program, input, 1, 0, output, error) != 0) {
            fprintf(stderr, "%s\n", error);
            status = 2;
        } else if (fwrite(output, sizeof *output, outputs, stdout) != outputs) {
            fprintf(stderr, "the outputs cannot be written\n");
            status = 2;
        }
    }
    if (status == 0 && (ferror(file) || read != 0)) {
        fprintf(stderr, "%s does not hold whole samples of %zu bytes\n", argv[2], input_bytes);
        status = 2;
    }
    if (fflush(stdout) != 0) {
        fprintf(stderr, "the outputs cannot be written\n");
        status = 2;
    }
    if (file != NULL) {
        fclose(file);
    }
    free(input);
    free(output);
    whit_free(program);
    return status;
}
