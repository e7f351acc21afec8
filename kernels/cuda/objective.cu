// From the losses of each example to those of a batch, and whether a training may go on.

// losses = (loss, reconstruction, kl) and the derivatives dnll, dkl, as `Reference.elbo` says; nll has m numbers,
// kl (n, l). The weight may lie on the device, as the rate of `optimiser.cu`. One block, 32 columns of kl at a time by 8
// rows of threads.
KERNEL elbo(const real* nll, const real* kl, double* losses, real* dnll, real* dkl, int m, int n, int l, double weight,
            const double* weight_there, double floor) {
    __shared__ double part[8][WARP];
    __shared__ bool above[WARP];
    int column = threadIdx.x % WARP, row = threadIdx.x / WARP;
    if (weight_there) weight = *weight_there;
    double reconstruction = 0, total = 0, penalty = 0;
    for (int i = threadIdx.x; i < m; i += blockDim.x) {
        reconstruction += nll[i];
        dnll[i] = (real)1 / m;
    }
    for (int first = 0; first < l; first += WARP) {
        int j = first + column;
        double sum = 0;
        if (j < l)
#pragma unroll 8
            for (int i = row; i < n; i += 8) sum += kl[i * l + j];
        part[row][column] = sum;
        __syncthreads();
        if (row == 0 && j < l) {
            for (int other = 1; other < 8; other++) sum += part[other][column];
            double mean = sum / n;
            total += mean;
            penalty += mean < floor ? floor : mean;
            above[column] = mean > floor;
        }
        __syncthreads();
        if (j < l)
            for (int i = row; i < n; i += 8) dkl[i * l + j] = above[column] ? (real)(weight / n) : 0;
    }
    reconstruction = block_sum(reconstruction) / m;
    total = block_sum(total);
    penalty = block_sum(penalty);
    if (threadIdx.x == 0) {
        losses[0] = reconstruction + weight * penalty;
        losses[1] = reconstruction;
        losses[2] = total;
    }
}

// stop = 1 from the first of up to five numbers on that is not finite: the optimisers then do nothing. Of a recorded step
// cells[3] is the address of a row of five, where the numbers go, and the cells move on: to the next row, and by the words
// that `take_next` has taken.
KERNEL watch(const double* a, const double* b, const double* c, const double* d, const double* e, label* cells,
             int words_0, int words_1, int words_2, int* stop) {
    const double* numbers[] = {a, b, c, d, e};
    double found[5];
    for (int i = 0; i < 5; i++) found[i] = numbers[i] ? *numbers[i] : 0;
    for (int i = 0; i < 5; i++)
        if (!isfinite(found[i])) *stop = 1;
    if (!cells) return;
    double* row = (double*)cells[3];
    for (int i = 0; i < 5; i++) row[i] = found[i];
    cells[0] += 4 * words_0, cells[1] += 4 * words_1, cells[2] += 4 * words_2;
    cells[3] += 5 * sizeof(double);
}
