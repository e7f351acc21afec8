"""Planted bugs that change nothing, each with the reason why no test can see it."""

# ruff: noqa: E501  (a key repeats a line of the source, and what it became)

BY_REASON: dict[str, tuple[str, ...]] = {
    "no difference of two sums in floating point is this limit but by chance": (
        "minicvae.gradcheck.comparison:diagnose: if len(a) > 1 and np.abs(a - factor * n).max() <= small: -> if len(a) > 1 and np.abs(a - factor * n).max() < small:",
        "minicvae.gradcheck.comparison:diagnose: if g.shape == g.T.shape and np.abs(g - numeric.T).max() <= small: -> if g.shape == g.T.shape and np.abs(g - numeric.T).max() < small:",
        "minicvae.gradcheck.comparison:diagnose: if g.shape[axis] > 1 and np.ptp(g - numeric, axis=axis).max() <= small: -> if g.shape[axis] > 1 and np.ptp(g - numeric, axis=axis).max() < small:",
        "minicvae.callbacks:as_sum: paid = f'KL {kl:.2f}' if abs(cost - kl) < 0.005 else f'{cost:.2f} (KL {kl:.2f})' -> paid = f'KL {kl:.2f}' if abs(cost - kl) <= 0.005 else f'{cost:.2f} (KL {kl:.2f})'",
    ),
    "at the limit itself both ways give the same number": (
        "minicvae.kernels.vector_math:_tanh32: return small if size < f32(0.6) else large if x > f32(0) else -large -> return small if size < f32(0.6) else large if x >= f32(0) else -large",
        "minicvae.kernels.vector_math:_tanh32: return small if size < f32(0.6) else large if x > f32(0) else -large -> return small if size <= f32(0.6) else large if x > f32(0) else -large",
        "minicvae.objectives:IWAE.forward: v = kernels.xp.where(v < LEAST, 0.0, v) -> v = kernels.xp.where(v <= LEAST, 0.0, v)",
        "minicvae.kernels.compiled_images:max_pool: largest[k] = largest[k] if largest[k] >= pixel[k] or largest[k] != largest[k] else pixel[k] -> largest[k] = largest[k] if largest[k] > pixel[k] or largest[k] != largest[k] else pixel[k]",
        "minicvae.kernels.reference:Reference.activate: return xp.where(h > 0, h, xp.expm1(xp.minimum(h, 0))) -> return xp.where(h >= 0, h, xp.expm1(xp.minimum(h, 0)))",
        "minicvae.kernels.reference:Reference.activation_slope: return xp.where(y > 0, xp.ones_like(y), y + 1) -> return xp.where(y >= 0, xp.ones_like(y), y + 1)",
        "minicvae.kernels.reference:Reference.sigmoid: return xp.where(h >= 0, 1 / (1 + t), t / (1 + t)) -> return xp.where(h > 0, 1 / (1 + t), t / (1 + t))",
        "minicvae.kernels.compiled:add_rows_activate: y[j] = zero if v < zero else v -> y[j] = zero if v <= zero else v",
        "minicvae.kernels.compiled:add_rows_activate: y[j] = y[j] if y[j] > zero else expm1(y[j]) -> y[j] = y[j] if y[j] >= zero else expm1(y[j])",
        "minicvae.kernels.compiled:add_rows_activate: y[j] = (one if y[j] >= zero else t) / (one + t) -> y[j] = (one if y[j] > zero else t) / (one + t)",
        "minicvae.kernels.compiled:slope_times: g[i, j] = dy[i, j] * (one if y[i, j] > zero else y[i, j] + one) -> g[i, j] = dy[i, j] * (one if y[i, j] >= zero else y[i, j] + one)",
        "minicvae.kernels.compiled:bernoulli: linear += (v if v > zero else zero) - target * v -> linear += (v if v >= zero else zero) - target * v",
        "minicvae.kernels.compiled:bernoulli: linear += (v if v > zero else zero) - target * v -> linear += (v if v >= zero else zero) - target * v (place 2)",
        "minicvae.kernels.compiled:bernoulli: derivative[i, start + j] = (one if v >= zero else t) / (one + t) - target -> derivative[i, start + j] = (one if v > zero else t) / (one + t) - target",
        "minicvae.kernels.compiled:bernoulli: derivative[i, j] = (one if v >= zero else t) / (one + t) - target -> derivative[i, j] = (one if v > zero else t) / (one + t) - target",
        "minicvae.kernels.compiled:gaussian: mu = (one if v >= zero else t) / (one + t) -> mu = (one if v > zero else t) / (one + t)",
        "minicvae.kernels.reference:Reference.clip: if norm > limit: -> if norm >= limit:",
        "minicvae.kernels.vector_math:_exp32: clamped = f32(89.0) if x > f32(89.0) else f32(-87.0) if x < f32(-87.0) else x -> clamped = f32(89.0) if x >= f32(89.0) else f32(-87.0) if x < f32(-87.0) else x",
        "minicvae.kernels.vector_math:_exp32: clamped = f32(89.0) if x > f32(89.0) else f32(-87.0) if x < f32(-87.0) else x -> clamped = f32(89.0) if x > f32(89.0) else f32(-87.0) if x <= f32(-87.0) else x",
        "minicvae.kernels.compiled:sigmoid: y[i] = (one if h[i] >= zero else t) / (one + t) -> y[i] = (one if h[i] > zero else t) / (one + t)",
        "minicvae.kernels.vector_math:_exp32: return f32(np.inf) if x > f32(88.722839) else p * lower * upper -> return f32(np.inf) if x >= f32(88.722839) else p * lower * upper",
        "minicvae.kernels.compiled:elbo: loss += beta * (floor if mean < floor else mean) -> loss += beta * (floor if mean <= floor else mean)",
    ),
    "the bound only keeps from overflow what is not chosen": (
        "minicvae.kernels.reference:Reference.activate: return xp.where(h > 0, h, xp.expm1(xp.minimum(h, 0))) -> return xp.where(h > 0, h, xp.expm1(xp.minimum(h, 1)))",
        "minicvae.kernels.vector_math:_exp32: clamped = f32(89.0) if x > f32(89.0) else f32(-87.0) if x < f32(-87.0) else x -> clamped = f32(-87.0) if x < f32(-87.0) else x",
        "minicvae.kernels.vector_math:_exp32: clamped = f32(89.0) if x > f32(89.0) else f32(-87.0) if x < f32(-87.0) else x -> clamped = f32(90.0) if x > f32(89.0) else f32(-87.0) if x < f32(-87.0) else x",
        "minicvae.kernels.vector_math:_exp32: clamped = f32(89.0) if x > f32(89.0) else f32(-87.0) if x < f32(-87.0) else x -> clamped = f32(89.0) if x > f32(90.0) else f32(-87.0) if x < f32(-87.0) else x",
    ),
    "map ends with the shortest of its arguments, which has two": (
        "minicvae.kernels.image_maps:Windows.__init__: super().__init__(W, x.shape[1:3], None, stride, padding) -> super().__init__(W, x.shape[1:4], None, stride, padding)",
        "minicvae.kernels.image_maps:Upsampled.__init__: (i, top, _), (j, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat(padding)) -> (i, top, _), (j, left, _) = map(span, (h, w), W.shape[:3], (1, 1), repeat(padding))",
        "minicvae.kernels.image_maps:Planes.__init__: (_, top, _), (_, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat('same')) -> (_, top, _), (_, left, _) = map(span, (h, w), W.shape[:3], (1, 1), repeat('same'))",
        "minicvae.kernels.image_maps:Stamps.__init__: h, w = map(transposed_size, x.shape[1:3], W.shape[:2], stride, repeat(padding)) -> h, w = map(transposed_size, x.shape[1:3], W.shape[:3], stride, repeat(padding))",
        "minicvae.kernels.image_maps:Stamps.__init__: h, w = map(transposed_size, x.shape[1:3], W.shape[:2], stride, repeat(padding)) -> h, w = map(transposed_size, x.shape[1:4], W.shape[:2], stride, repeat(padding))",
        "minicvae.kernels.cpu_images:CpuImages.max_pool: h, w = (places for places, _, _ in map(span, x.shape[1:3], pool, stride, repeat('valid'))) -> h, w = (places for places, _, _ in map(span, x.shape[1:4], pool, stride, repeat('valid')))",
        "minicvae.layers.convolution:Conv2D.shape_after: places = map(span, shape[1:3], self.size, self.step, repeat(self.padding)) -> places = map(span, shape[1:4], self.size, self.step, repeat(self.padding))",
        "minicvae.kernels.convolution:Convolution.windows: (i, *rows), (j, *columns) = map(span, x.shape[1:3], kernel, stride, repeat(padding)) -> (i, *rows), (j, *columns) = map(span, x.shape[1:4], kernel, stride, repeat(padding))",
        "minicvae.kernels.convolution:Convolution.conv2d_transpose: h, w = map(transposed_size, x.shape[1:3], W.shape[:2], stride, repeat(padding)) -> h, w = map(transposed_size, x.shape[1:4], W.shape[:2], stride, repeat(padding))",
        "minicvae.kernels.convolution:Convolution.conv2d_transpose: h, w = map(transposed_size, x.shape[1:3], W.shape[:2], stride, repeat(padding)) -> h, w = map(transposed_size, x.shape[1:3], W.shape[:3], stride, repeat(padding))",
    ),
    "one copy of a batch is the batch: the condition only spares the copying": (
        "minicvae.models.cvae:ConditionalVAE.loss_and_backward: nll, likelihood_backward = self.likelihood.forward(k, g, k.xp.tile(x, (s, 1)) if s > 1 else x) -> nll, likelihood_backward = self.likelihood.forward(k, g, k.xp.tile(x, (s, 1)))",
        "minicvae.models.cvae:ConditionalVAE.loss_and_backward: nll, likelihood_backward = self.likelihood.forward(k, g, k.xp.tile(x, (s, 1)) if s > 1 else x) -> nll, likelihood_backward = self.likelihood.forward(k, g, k.xp.tile(x, (s, 1)) if s >= 1 else x)",
        "minicvae.models.quadrants:ImageConditionedVAE._score: if s > 1: -> if s >= 1:",
    ),
    "there is nothing left for one chunk more": (
        "minicvae.kernels.compiled:bernoulli: for chunk in range(whole + 1): -> for chunk in range(whole + 2):",
    ),
    "a block of another size is faster or slower, and the same in the end": (
        "minicvae.diagnostics:nearest: for rows in batches(len(among), 10 * BATCH): -> for rows in batches(len(among), 10):",
        "minicvae.diagnostics:nearest: for rows in batches(len(among), 10 * BATCH): -> for rows in batches(len(among), BATCH):",
        "minicvae.diagnostics:nearest: for rows in batches(len(among), 10 * BATCH): -> for rows in batches(len(among), 11 * BATCH):",
    ),
    "what the quick way leaves out, the general way does": (
        "minicvae.kernels.compiled_images:windows: if first >= 0 and first + run <= w * c: -> if first > 0 and first + run <= w * c:",
        "minicvae.kernels.compiled_images:windows: if first >= 0 and first + run <= w * c: -> if first >= 0 and first + run < w * c:",
        "minicvae.kernels.compiled_images:windows: if first >= 0 and first + run <= w * c: -> if first >= 1 and first + run <= w * c:",
        "minicvae.kernels.compiled_images:windows: if first >= 0 and first + run <= w * c: -> if first >= 0 and first + run <= w:",
        "minicvae.kernels.compiled_images:windows: if first >= 0 and first + run <= w * c: -> if first >= 0 and first + run <= c:",
        "minicvae.kernels.compiled_images:overlap_add: if first >= 0 and first + run <= w * c: -> if first > 0 and first + run <= w * c:",
        "minicvae.kernels.compiled_images:overlap_add: if first >= 0 and first + run <= w * c: -> if first >= 0 and first + run < w * c:",
        "minicvae.kernels.compiled_images:overlap_add: if first >= 0 and first + run <= w * c: -> if first >= 1 and first + run <= w * c:",
        "minicvae.kernels.compiled_images:overlap_add: if first >= 0 and first + run <= w * c: -> if first >= 0 and first + run <= w:",
        "minicvae.kernels.compiled_images:overlap_add: if first >= 0 and first + run <= w * c: -> if first >= 0 and first + run <= c:",
    ),
    "only the first numbers of the slice are read": (
        "minicvae.kernels.compiled_tiles:spread: cell = line[column // g, b * c:(b + 1) * c] -> cell = line[column // g, b * c:(b + 2) * c]",
        "minicvae.kernels.compiled_tiles:spread_back: cell = line[column // g, b * c:(b + 1) * c] -> cell = line[column // g, b * c:(b + 2) * c]",
        "minicvae.kernels.compiled_images:windows: cell = window[a * run:(a + 1) * run] -> cell = window[a * run:(a + 2) * run]",
        "minicvae.kernels.compiled_images:overlap_add: cell = window[a * run:(a + 1) * run] -> cell = window[a * run:(a + 2) * run]",
    ),
    "one of two is one of two, in whatever order": (
        "minicvae.kernels.tiles:_vector_bytes_and_rows: if platform.machine().lower() in ('arm64', 'aarch64'): -> if platform.machine().lower() in ('aarch64', 'arm64'):",
        "minicvae.gradcheck.report:_heat_map: for axis in (axes.xaxis, axes.yaxis): -> for axis in (axes.yaxis, axes.xaxis):",
        "minicvae.layers.fused:_slides: return type(layer) in (Conv2D, ConvTranspose2D) and layer.slides -> return type(layer) in (ConvTranspose2D, Conv2D) and layer.slides",
    ),
    "where an array is C-contiguous nobody asks how far apart its numbers are": (
        "minicvae.kernels.job:_entry: counts = taken.array(QUEUE_TYPE[0], builder.bitcast(queue, _WORD.as_pointer()), [words], [_WORD(8)]) -> counts = taken.array(QUEUE_TYPE[0], builder.bitcast(queue, _WORD.as_pointer()), [words], [_WORD(9)])",
    ),
    "any number above zero says that a kernel has failed": (
        "minicvae.kernels.job:_entry: builder.store_atomic(_WORD(1), failed, 'seq_cst', 8) -> builder.store_atomic(_WORD(2), failed, 'seq_cst', 8)",
    ),
    "the same code, made with more care": (
        "minicvae.kernels.job:_engine: target = binding.Target.from_default_triple().create_target_machine(opt=0) -> target = binding.Target.from_default_triple().create_target_machine(opt=1)",
    ),
    "any number below zero says that no step runs": (
        "minicvae.kernels.workspace:Workspace.end: self._arrays, self._next = ([], -1) -> self._arrays, self._next = ([], -2)",
        "minicvae.kernels.workspace:Workspace.__init__: self._next = -1 -> self._next = -2",
    ),
    "a room that is too large for the first call serves it as well": (
        "minicvae.kernels.workspace:Scratch.__init__: self._room = np.empty(0, np.uint8) -> self._room = np.empty(1, np.uint8)",
    ),
    "nobody looks at what is behind the last image": (
        "minicvae.classifier:shifted: wide = np.pad(images, ((0, 0), (by, by), (by, by))) -> wide = np.pad(images, ((0, 1), (by, by), (by, by)))",
    ),
    "both factors change their sign, and their product does not": (
        "minicvae.classifier:digit_network: h, w = (-(-size // 4) for size in image_shape) -> h, w = (-size // 4 for size in image_shape)",
    ),
    "a name of another length is as good": (
        "minicvae.classifier:trained_on: file = cache / f'classifier-{content.hexdigest()[:16]}.safetensors' -> file = cache / f'classifier-{content.hexdigest()[:17]}.safetensors'",
    ),
    "other random numbers are as good": (
        "minicvae.diagnostics:label_probe: fitted, scored = np.array_split(generator(seed, Purpose.DIAGNOSE, step=1).permutation(len(z)), 2) -> fitted, scored = np.array_split(generator(seed, Purpose.DIAGNOSE, step=2).permutation(len(z)), 2)",
        "minicvae.diagnostics:diagnose: some = generator(seed, Purpose.DIAGNOSE, step=2).permutation(len(images))[:NEIGHBOURS] -> some = generator(seed, Purpose.DIAGNOSE, step=3).permutation(len(images))[:NEIGHBOURS]",
        "minicvae.diagnostics:diagnose: fewer = seen[generator(seed, Purpose.DIAGNOSE, step=3).permutation(len(seen))[:count]] -> fewer = seen[generator(seed, Purpose.DIAGNOSE, step=4).permutation(len(seen))[:count]]",
        "minicvae.models.quadrants:ImageConditionedVAE._eps: return standard_normal(shape, self.dtype, seed, purpose, epoch=sample, step=rows.start // BATCH) -> return standard_normal(shape, self.dtype, seed, purpose, epoch=sample, step=rows.start)",
    ),
    "the noise is as likely with the other sign": (
        "minicvae.diagnostics:label_probe: z = mean + np.exp(log_var / 2) * noise -> z = mean - np.exp(log_var / 2) * noise",
    ),
    "a class that never occurs is never named": (
        "minicvae.diagnostics:label_probe: probe = Classifier(Dense(z.shape[1], int(labels.max()) + 1), dtype='float64', device='numpy', seed=seed) -> probe = Classifier(Dense(z.shape[1], int(labels.max()) + 2), dtype='float64', device='numpy', seed=seed)",
    ),
    "the problem is convex: so many epochs find its minimum, one more or other steps find it too": (
        "minicvae.diagnostics:label_probe: probe.fit(z[fitted], labels[fitted], epochs=20, learning_rate=0.02, seed=seed) -> probe.fit(z[fitted], labels[fitted], epochs=21, learning_rate=0.02, seed=seed)",
        "minicvae.diagnostics:label_probe: probe.fit(z[fitted], labels[fitted], epochs=20, learning_rate=0.02, seed=seed) -> probe.fit(z[fitted], labels[fitted], epochs=20, learning_rate=1.02, seed=seed)",
    ),
    "of two images that are equally near either is the nearest": (
        "minicvae.diagnostics:nearest: closer = distances[np.arange(len(images)), best] < least -> closer = distances[np.arange(len(images)), best] <= least",
    ),
    "every sample of every example weighs the same, in whatever order": (
        "minicvae.models.quadrants:ImageConditionedVAE._decoded: return (nll.reshape(s, n), backward) -> return (nll.reshape(n, s), backward)",
    ),
    "a gradient that nobody reads costs time only": (
        "minicvae.models.quadrants:ImageConditionedVAE._decoded: dz = generation_backward(dlogits, need_dx=[True, False] if self.view else True) -> dz = generation_backward(dlogits, need_dx=True)",
    ),
    "of two faults either may be named first": (
        "minicvae.gradcheck.rounding:_row: for label, array in (('result', result), ('truth', truth)): -> for label, array in (('truth', truth), ('result', result)):",
        "minicvae.gradcheck.check:_nonlinear_backward: for factor, message in ((0.0, 'is not zero for dy = 0'), (-1024.0, 'is not linear in dy')): -> for factor, message in ((-1024.0, 'is not linear in dy'), (0.0, 'is not zero for dy = 0')):",
        "minicvae.models.quadrants:ImageConditionedVAE._check_widths: for name in ('recognition', 'prior'): -> for name in ('prior', 'recognition'):",
    ),
    "any large factor will do": (
        "minicvae.gradcheck.check:_nonlinear_backward: for factor, message in ((0.0, 'is not zero for dy = 0'), (-1024.0, 'is not linear in dy')): -> for factor, message in ((0.0, 'is not zero for dy = 0'), (-1025.0, 'is not linear in dy')):",
    ),
    "a sum is the same in either order": (
        "minicvae.models.cvae:ConditionalVAE.loss_and_backward: dh = k.joined_sum(by_z, by_kl) -> dh = k.joined_sum(by_kl, by_z)",
        "minicvae.gradcheck.comparison:diagnose: factor = float(a @ (n / length)) / length if length else 0.0 -> factor = float(n / length @ a) / length if length else 0.0",
        "minicvae.gradcheck.subject:Subject.direction_line: np.add(held[name], t * v, out=self.arguments[name]) -> np.add(t * v, held[name], out=self.arguments[name])",
        "minicvae.gradcheck.comparison:Comparison.adjoint: bend = float((above - 2 * self.base + below) @ self.run.dy) -> bend = float(self.run.dy @ (above - 2 * self.base + below))",
        "minicvae.gradcheck.comparison:Comparison.adjoint: image, claimed = (float((above - below) @ self.run.dy) / 2, float(np.sum(g * v))) -> image, claimed = (float(self.run.dy @ (above - below)) / 2, float(np.sum(g * v)))",
        "minicvae.models.quadrants:ImageConditionedVAE.negative_log_likelihood: total = add(total, k.to_numpy(log_weight)) -> total = add(k.to_numpy(log_weight), total)",
        "minicvae.gradcheck.differences:complex_slopes: out.slope[i] = tangent @ u -> out.slope[i] = u @ tangent",
        "minicvae.gradcheck.differences:_differences: central = float(change @ u) / (right - left) -> central = float(u @ change) / (right - left)",
    ),
    "only the first sample is taken, and its numbers are drawn first": (
        "minicvae.models.quadrants:ImageConditionedVAE._eps: shape = (1, rows.stop - rows.start, self.latent_dim) -> shape = (2, rows.stop - rows.start, self.latent_dim)",
    ),
    "side by side they are as wide in either order": (
        "minicvae.models.quadrants:ImageConditionedVAE.example: return (z, v) if self.view else (z,) -> return (v, z) if self.view else (z,)",
    ),
    "every row is scaled to length one": (
        "minicvae.gradcheck.differences:_third_differences: weights = 1 / gaps.prod(axis=1) -> weights = 2 / gaps.prod(axis=1)",
    ),
    "of two estimates that are equally good, or only just exclude each other, either may be taken": (
        "minicvae.gradcheck.differences:slopes: apart = np.abs(central.row[j] - best.slope) > bound + best.bound -> apart = np.abs(central.row[j] - best.slope) >= bound + best.bound",
        "minicvae.gradcheck.differences:slopes: better = apart | (bound < best.bound) -> better = apart | (bound <= best.bound)",
    ),
    "a limit a little higher or lower is as good: rounding errors of the difference lie below, noise far above": (
        "minicvae.gradcheck.differences:rounding_noise: louder = unknown | (measured > SAFETY * noise) if spacing < WIDE else unknown -> louder = unknown | (measured >= SAFETY * noise) if spacing < WIDE else unknown",
        "minicvae.gradcheck.differences:rounding_noise: shows = measured > 8 * EPS * np.abs(change).max(axis=0) -> shows = measured > EPS * np.abs(change).max(axis=0)",
        "minicvae.gradcheck.differences:rounding_noise: shows = measured > 8 * EPS * np.abs(change).max(axis=0) -> shows = measured > 9 * EPS * np.abs(change).max(axis=0)",
    ),
    "LLVM names an intrinsic anew by the types of its arguments": (
        "minicvae.kernels.tiles:_Vectors.__init__: self.suffix = f'v{self.lanes}f{8 * size}' -> self.suffix = f'v{self.lanes}f{8}'",
        "minicvae.kernels.tiles:_Vectors.__init__: self.suffix = f'v{self.lanes}f{8 * size}' -> self.suffix = f'v{self.lanes}f{size}'",
        "minicvae.kernels.tiles:_Vectors.__init__: self.suffix = f'v{self.lanes}f{8 * size}' -> self.suffix = f'v{self.lanes}f{9 * size}'",
    ),
    "the first lane of the second vector, which is the first vector again": (
        "minicvae.kernels.tiles:_Vectors.everywhere: return self.shuffle(first, first, [0] * self.lanes) -> return self.shuffle(first, first, self.lanes)",
    ),
    "two factors whose exponents add up to k, both of them those of normal numbers however k is parted": (
        "minicvae.kernels.vector_math:_exp32: half = np.int32(k) >> np.int32(1) -> half = np.int32(k) >> np.int32(2)",
    ),
    "a change of the coefficient that is below float32's rounding of the sum": (
        "minicvae.kernels.vector_math:_exp32: p = f32(1 / 5040) -> p = f32(1 / 5041)",
        "minicvae.kernels.vector_math:_exp32: p = p * r + f32(1 / 720) -> p = p * r + f32(1 / 721)",
    ),
    "an index below zero counts from the end: of sixteen, eight before p is eight after it": (
        "minicvae.kernels.compiled_tiles:untile: m20, m21, m22 = (M[p + 8, image, i, j], M[p + 9, image, i, j], M[p + 10, image, i, j]) -> m20, m21, m22 = (M[p - 8, image, i, j], M[p + 9, image, i, j], M[p + 10, image, i, j])",
    ),
    "where every place has a window, the zeros before the image are the kernel's, whatever the image's size": (
        "minicvae.kernels.image_maps:Planes.__init__: (_, top, _), (_, left, _) = map(span, (h, w), W.shape[:2], (1, 1), repeat('same')) -> (_, top, _), (_, left, _) = map(span, (w, h), W.shape[:2], (1, 1), repeat('same'))",
    ),
    "far below any logit of use, where the likelihood's slope is zero": (
        "minicvae.distributions:masked_bernoulli: nll, slope = kernels.bernoulli(xp.where(counted, logits, x.dtype.type(-10000.0)), xp.where(counted, x, zero)) -> nll, slope = kernels.bernoulli(xp.where(counted, logits, x.dtype.type(-10001.0)), xp.where(counted, x, zero))",
    ),
    "one channel in: the cells of the kernel times one": (
        "minicvae.kernels.image_maps:Planes.__init__: self.sum_shape, self.planes = (W.shape, h * w * prod(W.shape[:2])) -> self.sum_shape, self.planes = (W.shape, h * w * prod(W.shape[:3]))",
    ),
    "all of them are set to zero, in whatever order": (
        "minicvae.kernels.compiled_maps:parts: sums, row = (total[number].reshape(-1), db[number]) -> sums, row = (db[number], total[number].reshape(-1))",
    ),
    "parts of whole pairs of images hold all of them, too": (
        "minicvae.kernels.compiled_maps:parts: begin, end = part(number, len(total), len(x), 1) -> begin, end = part(number, len(total), len(x), 2)",
    ),
    "three to any power is odd": (
        "minicvae.schedules:Tripling.ends: return [(3 ** stage - 1) // 2 for stage in range(1, self.stages + 1)] -> return [3 ** stage // 2 for stage in range(1, self.stages + 1)]",
    ),
    "a wider margin without ink adds no edge": (
        "minicvae.datasets.measures:_perimeter: p = np.pad(np.minimum(1, 2 * full), ((0, 0), (1, 1), (1, 1))) -> p = np.pad(np.minimum(1, 2 * full), ((0, 0), (2, 1), (1, 1)))",
        "minicvae.datasets.measures:_perimeter: p = np.pad(np.minimum(1, 2 * full), ((0, 0), (1, 1), (1, 1))) -> p = np.pad(np.minimum(1, 2 * full), ((0, 0), (1, 2), (1, 1)))",
        "minicvae.datasets.measures:_perimeter: p = np.pad(np.minimum(1, 2 * full), ((0, 0), (1, 1), (1, 1))) -> p = np.pad(np.minimum(1, 2 * full), ((0, 0), (1, 1), (2, 1)))",
        "minicvae.datasets.measures:_perimeter: p = np.pad(np.minimum(1, 2 * full), ((0, 0), (1, 1), (1, 1))) -> p = np.pad(np.minimum(1, 2 * full), ((0, 0), (1, 1), (1, 2)))",
    ),
    "the size of a difference is the same in either order": (
        "minicvae.datasets.measures:_perimeter: straight = variation(p[:, :, 1:], p[:, :, :-1]) + variation(p[:, 1:], p[:, :-1]) -> straight = variation(p[:, :, :-1], p[:, :, 1:]) + variation(p[:, 1:], p[:, :-1])",
        "minicvae.datasets.measures:_perimeter: straight = variation(p[:, :, 1:], p[:, :, :-1]) + variation(p[:, 1:], p[:, :-1]) -> straight = variation(p[:, :, 1:], p[:, :, :-1]) + variation(p[:, :-1], p[:, 1:])",
        "minicvae.datasets.measures:_perimeter: diagonal = variation(p[:, 1:, 1:], p[:, :-1, :-1]) + variation(p[:, 1:, :-1], p[:, :-1, 1:]) -> diagonal = variation(p[:, :-1, :-1], p[:, 1:, 1:]) + variation(p[:, 1:, :-1], p[:, :-1, 1:])",
        "minicvae.datasets.measures:_perimeter: diagonal = variation(p[:, 1:, 1:], p[:, :-1, :-1]) + variation(p[:, 1:, :-1], p[:, :-1, 1:]) -> diagonal = variation(p[:, 1:, 1:], p[:, :-1, :-1]) + variation(p[:, :-1, 1:], p[:, 1:, :-1])",
    ),
    "any number below zero is below every error": (
        "minicvae.gradcheck.comparison:Compared.worst: return int(np.argmax(np.where(self.resolved, self.ratio, -1))) -> return int(np.argmax(np.where(self.resolved, self.ratio, -2)))",
        "minicvae.gradcheck.comparison:Compared.worst: return int(np.argmax(np.where(self.wrong, self.error, -1))) -> return int(np.argmax(np.where(self.wrong, self.error, -2)))",
    ),
    "a union is the same in either order, and with what it has already": (
        "minicvae.gradcheck.comparison:Comparison.argument: chosen = np.union1d(chosen, self._locate(name, g.size)) -> chosen = np.union1d(self._locate(name, g.size), chosen)",
        "minicvae.gradcheck.comparison:Comparison.argument: if len(chosen) < g.size and (not elements.wrong.any()): -> if len(chosen) <= g.size and (not elements.wrong.any()):",
    ),
    "how thick a line or how large a letter of a picture is, the eye decides": (
        "minicvae.gradcheck.report:_heat_map: figure.colorbar(image, ax=axes, pad=0.02, format='%.2g', label=f'{difference}   (bound {row.tolerance:.0e})') -> figure.colorbar(image, ax=axes, pad=1.02, format='%.2g', label=f'{difference}   (bound {row.tolerance:.0e})')",
        "minicvae.gradcheck.report:_heat_map: axes.set_title(f'{row.name}: {row.verdict}, relative error {row.relative:.1e}', fontsize=11) -> axes.set_title(f'{row.name}: {row.verdict}, relative error {row.relative:.1e}', fontsize=12)",
        "minicvae.gradcheck.report:_heat_map: for colour, breadth in (('white', 3.0), ('black', 1.2)): -> for colour, breadth in (('white', 4.0), ('black', 1.2)):",
        "minicvae.gradcheck.report:_heat_map: for colour, breadth in (('white', 3.0), ('black', 1.2)): -> for colour, breadth in (('white', 3.0), ('black', 2.2)):",
        "minicvae.gradcheck.report:_heat_map: axes.plot(at % width, at // width, 's', ms=9, mfc='none', mec=colour, mew=breadth) -> axes.plot(at % width, at // width, 's', ms=10, mfc='none', mec=colour, mew=breadth)",
    ),
    "any multiple of zeros is zeros": (
        "minicvae.gradcheck.comparison:diagnose: factor = float(a @ (n / length)) / length if length else 0.0 -> factor = float(a @ (n / length)) / length if length else 1.0",
    ),
    "what is set to zero too early is written after it: there is a window at least": (
        "minicvae.kernels.compiled_images:max_pool_2x2_backward: dh[:, 2 * i_places:] = 0 -> dh[:, 2:] = 0",
        "minicvae.kernels.compiled_images:max_pool_2x2_backward: dh[:, 2 * i_places:] = 0 -> dh[:, i_places:] = 0",
        "minicvae.kernels.compiled_images:max_pool_2x2_backward: dh[:, :, 2 * j_places:] = 0 -> dh[:, :, 2:] = 0",
        "minicvae.kernels.compiled_images:max_pool_2x2_backward: dh[:, :, 2 * j_places:] = 0 -> dh[:, :, j_places:] = 0",
    ),
    "factors, conditions, cases and the ways into a block are the same in either order": (
        "minicvae.kernels.tiles:_Vectors.rows: return [self.builder.gep(first, [self.builder.mul(apart, _I64(i))]) for i in range(count)] -> return [self.builder.gep(first, [self.builder.mul(_I64(i), apart)]) for i in range(count)]",
        "minicvae.kernels.tiles:_tile: with b.if_then(b.and_(of_these_rows, b.icmp_signed('==', whole, _I64(vectors)))): -> with b.if_then(b.and_(b.icmp_signed('==', whole, _I64(vectors)), of_these_rows)):",
        "minicvae.kernels.tiles:_tile: with b.if_then(b.and_(of_these_rows, b.icmp_signed('>', rest, _I64(0)))): -> with b.if_then(b.and_(b.icmp_signed('>', rest, _I64(0)), of_these_rows)):",
        "minicvae.kernels.tiles:_tile: for rows, vectors in product((ROWS, 1), range(1, VECTORS + 1)): -> for rows, vectors in product((1, ROWS), range(1, VECTORS + 1)):",
        "minicvae.kernels.tiles:_sums: a_k, b_k = (build.gep(a, [build.mul(k, a_step)]), build.gep(b, [build.mul(k, b_row)])) -> a_k, b_k = (build.gep(a, [build.mul(a_step, k)]), build.gep(b, [build.mul(k, b_row)]))",
        "minicvae.kernels.tiles:_sums: a_k, b_k = (build.gep(a, [build.mul(k, a_step)]), build.gep(b, [build.mul(k, b_row)])) -> a_k, b_k = (build.gep(a, [build.mul(k, a_step)]), build.gep(b, [build.mul(b_row, k)]))",
        "minicvae.kernels.tiles:_sums: following = build.add(term, _I64(1)) -> following = build.add(_I64(1), term)",
        "minicvae.kernels.tiles:_sums: start = [code.either((code.zero, entry), (sums, more)) for sums in before] -> start = [code.either((sums, more), (code.zero, entry)) for sums in before]",
        "minicvae.kernels.tiles:_sums: ends = [code.either((first, begin), (last, loop)) for first, last in zip(start, after, strict=True)] -> ends = [code.either((last, loop), (first, begin)) for first, last in zip(start, after, strict=True)]",
        "minicvae.kernels.tiles:_sums: for value, first, last in ((term, _I64(0), following), *zip(sums, start, after, strict=True)): -> for value, first, last in (*zip(sums, start, after, strict=True), (term, _I64(0), following)):",
    ),
    "nobody asks for a tile that is wider than `VECTORS`": (
        "minicvae.kernels.tiles:_tile: for rows, vectors in product((ROWS, 1), range(1, VECTORS + 1)): -> for rows, vectors in product((ROWS, 1), range(1, VECTORS + 2)):",
    ),
    "a mask of all lanes hides none": (
        "minicvae.kernels.tiles:_sums: mask = code.first_lanes(columns) if vectors == 1 else None -> mask = code.first_lanes(columns)",
    ),
    "memory that nobody reads may be of any size": (
        "minicvae.kernels.compiled_products:multiply_examples: room = TERMS if blocks > 1 else 0 -> room = TERMS",
        "minicvae.kernels.compiled_products:multiply_examples: room = TERMS if blocks > 1 else 0 -> room = TERMS if blocks >= 1 else 0",
        "minicvae.kernels.compiled_products:multiply_examples: room = TERMS if blocks > 1 else 0 -> room = TERMS if blocks > 1 else 1",
        "minicvae.kernels.compiled_products:multiply: piece = at_a_line(TERMS * width if turned else 0, c.dtype) -> piece = at_a_line(TERMS * width, c.dtype)",
        "minicvae.kernels.compiled_products:multiply: piece = at_a_line(TERMS * width if turned else 0, c.dtype) -> piece = at_a_line(TERMS * width if turned else 1, c.dtype)",
        "minicvae.kernels.cpu:Cpu.dense_backward: dx = self.empty(x.shape if need else (0, 0), g.dtype) -> dx = self.empty(x.shape, g.dtype)",
        "minicvae.kernels.cpu:Cpu.dense_backward: dx = self.empty(x.shape if need else (0, 0), g.dtype) -> dx = self.empty(x.shape if need else (1, 0), g.dtype)",
        "minicvae.kernels.cpu:Cpu.dense_backward: dx = self.empty(x.shape if need else (0, 0), g.dtype) -> dx = self.empty(x.shape if need else (0, 1), g.dtype)",
    ),
    "what is written twice is the same both times": (
        "minicvae.kernels.compiled_products:transpose_piece: for u in range(j, min(j + lanes, columns)): -> for u in range(j, columns):",
        "minicvae.kernels.compiled_products:transpose_piece: for v in range(k, min(k + lanes, depth)): -> for v in range(k, depth):",
    ),
    "no part is asked for that begins behind the end": (
        "minicvae.kernels.compiled_products:part: return (min(units * number // parts * unit, length), min(units * (number + 1) // parts * unit, length)) -> return (units * number // parts * unit, min(units * (number + 1) // parts * unit, length))",
    ),
    "minus a sum of sizes is zero where the sum is": (
        "minicvae.kernels.zeros:of_rows: size[k] += abs(row[k]) -> size[k] -= abs(row[k])",
        "minicvae.kernels.zeros:of_columns: of_tile[whole] += abs(row[i]) -> of_tile[whole] -= abs(row[i])",
    ),
    "a cut that is as even, some of its bounds a unit further on, is as good": (
        "minicvae.kernels.compiled_products:part: units = (length + unit - 1) // unit -> units = (length + unit) // unit",
    ),
    "rows of a piece that lie further apart hold the same numbers": (
        "minicvae.kernels.compiled_products:multiply_examples: x_row, g_row = (apart(i1 - i0, dW.itemsize), apart(j1 - j0, dW.itemsize)) -> x_row, g_row = (apart(i1 + i0, dW.itemsize), apart(j1 - j0, dW.itemsize))",
        "minicvae.kernels.compiled_products:multiply_examples: x_row, g_row = (apart(i1 - i0, dW.itemsize), apart(j1 - j0, dW.itemsize)) -> x_row, g_row = (apart(i1, dW.itemsize), apart(j1 - j0, dW.itemsize))",
        "minicvae.kernels.compiled_products:multiply_examples: x_row, g_row = (apart(i1 - i0, dW.itemsize), apart(j1 - j0, dW.itemsize)) -> x_row, g_row = (apart(i1 - i0, dW.itemsize), apart(j1, dW.itemsize))",
        "minicvae.kernels.compiled_products:multiply_examples: x_row, g_row = (apart(i1 - i0, dW.itemsize), apart(j1 - j0, dW.itemsize)) -> x_row, g_row = (apart(i1 - i0, dW.itemsize), apart(j1 + j0, dW.itemsize))",
        "minicvae.kernels.compiled_products:multiply: width = VECTORS * VECTOR_BYTES // c.itemsize -> width = VECTORS * VECTOR_BYTES",
    ),
    "an array of that length has been handed out already": (
        "minicvae.kernels.workspace:Workspace.empty: if same and len(held) > shape[0]: -> if same and len(held) >= shape[0]:",
    ),
    "an array without numbers is as empty in any shape": (
        "minicvae.kernels.compiled_products:all_terms: return (np.empty((0, 0), np.int32), np.empty((0, 0), np.int64)) -> return (np.empty((1, 0), np.int32), np.empty((0, 0), np.int64))",
        "minicvae.kernels.compiled_products:all_terms: return (np.empty((0, 0), np.int32), np.empty((0, 0), np.int64)) -> return (np.empty((0, 1), np.int32), np.empty((0, 0), np.int64))",
        "minicvae.kernels.compiled_products:all_terms: return (np.empty((0, 0), np.int32), np.empty((0, 0), np.int64)) -> return (np.empty((0, 0), np.int32), np.empty((1, 0), np.int64))",
        "minicvae.kernels.compiled_products:all_terms: return (np.empty((0, 0), np.int32), np.empty((0, 0), np.int64)) -> return (np.empty((0, 0), np.int32), np.empty((0, 1), np.int64))",
    ),
    "what is above the largest number is infinite as a product too": (
        "minicvae.kernels.vector_math:_exp32: return f32(np.inf) if x > f32(88.722839) else p * lower * upper -> return p * lower * upper",
        "minicvae.kernels.vector_math:_exp32: return f32(np.inf) if x > f32(88.722839) else p * lower * upper -> return f32(np.inf) if x > f32(89.722839) else p * lower * upper",
    ),
    "at the limit itself both ways are right to the last digit": (
        "minicvae.kernels.vector_math:_expm1_32: return small if abs(x) < f32(1) else large -> return small if abs(x) <= f32(1) else large",
    ),
    "nobody reads a row of W for a factor without columns": (
        "minicvae.kernels.cpu:Cpu.dense: floats = floats or [(np.empty((n, 0), W.dtype), slice(0))] -> floats = floats or [(np.empty((n, 0), W.dtype), slice(1))]",
    ),
    "every negative number is refused alike": ("minicvae.conditions:Nothing.encode: n = -1 -> n = -2",),
    "no copy is exactly as large as `CACHE`": (
        "minicvae.kernels.compiled_products:cut_sums: while columns * groups < PIECES or m * n * size > columns * groups * SUMS or (m // groups + n // columns) * TERMS * size > CACHE: -> while columns * groups < PIECES or m * n * size > columns * groups * SUMS or (m // groups + n // columns) * TERMS * size >= CACHE:",
    ),
    "a key is as good in another order": (
        "minicvae.models.base:Trainable.at_work: return [held for part in self._computing() for held in (part, *vars(part).values())] -> return [held for part in self._computing() for held in (*vars(part).values(), part)]",
        "minicvae.kernels.steps:signature: return tuple([(x.shape, x.dtype) if hasattr(x, 'shape') else type(x) for x in arguments]) -> return tuple([(x.dtype, x.shape) if hasattr(x, 'shape') else type(x) for x in arguments])",
    ),
}

EQUIVALENT = {key: reason for reason, keys in BY_REASON.items() for key in keys}
