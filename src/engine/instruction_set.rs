//! Which vector instructions the kernels on the CPU use here: they are compiled for several instruction sets.

/// The vector instructions of our own loops, chosen when the program starts.
#[must_use]
pub fn vector_instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    match pulp::Arch::new() {
        pulp::Arch::V4(_) => "AVX-512",
        pulp::Arch::V3(_) => "AVX2",
        _ => "baseline",
    }
    #[cfg(target_arch = "aarch64")]
    return "NEON";
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return "baseline";
}

/// Those of the matrix products, which the `gemm` crate chooses by the rule that is repeated here (gemm-common 0.19, gemm.rs).
#[must_use]
pub fn matmul_instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            "AVX-512"
        } else if std::arch::is_x86_feature_detected!("fma") {
            "FMA"
        } else {
            "baseline"
        }
    }
    #[cfg(target_arch = "aarch64")]
    return "NEON";
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return "baseline";
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_is_what_the_cpu_has() {
        let has_avx2 = std::arch::is_x86_feature_detected!("avx2");
        assert_eq!(vector_instructions() == "baseline", !has_avx2);
        assert_eq!(matmul_instructions() == "AVX-512", std::arch::is_x86_feature_detected!("avx512f"));
    }
}
