"The attention kernel, compiled for a GPU that is not there: what Triton's interpreter forgives, its compiler may not."
import pytest

triton = pytest.importorskip("triton")


@pytest.mark.parametrize("rows, d", [(64, 32), (128, 32)])
def test_kernels_compile_for_a_gpu(rows, d):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vit_scratch import kernel

    known = {"NORM": True, "TURN": True, "R": rows, "d": d}
    kinds = {**dict.fromkeys(("qkv", "out", "grad", "qkv_grad"), "*bf16"),
             **dict.fromkeys(("norms", "cos", "sin", "norms_grad"), "*fp32"), "scale": "fp32",
             **dict.fromkeys(known, "constexpr")}
    for backward, function in enumerate((kernel.forward_kernel, kernel.backward_kernel)):
        source = ASTSource(function, {name: kinds.get(name, "i32") for name in function.arg_names},
                           {(function.arg_names.index(name),): value for name, value in known.items()})
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32),
                                  options={"num_warps": kernel.warps(known, bool(backward))})
        assert compiled.asm["cubin"] and compiled.metadata.shared < 228 * 1024
