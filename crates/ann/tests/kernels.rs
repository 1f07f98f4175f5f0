//! What the compiler made of the kernels. For AVX-512 it once turned plain loops inside out and fetched elements one by one: ten
//! times the time, and all results right.
#![cfg(target_arch = "x86_64")]

use imgvec_ann::arch::Kernels;
use std::process::Command;

/// Calls every kernel, so that the linker keeps them.
fn use_all(kernels: Kernels) -> f32 {
    let (floats, mut sums, codes) = ([0.5f32; 64], [0.25f32; 64], [3i8; 64]);
    kernels.add_scaled(&mut sums, 2.0, &floats);
    let largest = kernels.decode(&floats, &sums, &codes, 0.5, &mut [0.0; 64]) + kernels.largest(&floats);
    let (mut dots, mut products) = ([0], [0]);
    kernels.dots_i8(&codes, &codes, &[0], &mut dots);
    kernels.matrix_i8(&codes, &codes, 64, &mut products);
    let residual = kernels.residual(&floats, &sums, &floats, 1, &mut [0; 8]);
    let (scale, _) = kernels.quantize(&floats, 0.5, &mut [0; 64]);
    let integers = kernels.dot_i8(&codes, &codes) + dots[0] + products[0];
    let looked_up = kernels.fastscan(&[1; 32], &[1; 32])[0];
    let floats = kernels.dot_f32(&floats, &sums) + kernels.dot_f32_i8(&floats, &codes);
    largest + residual.norm_squared + scale + integers as f32 + f32::from(looked_up) + floats
}

#[test]
fn no_kernel_gathers_or_scatters() {
    assert!(use_all(Kernels::best()).is_finite());
    let program = std::env::current_exe().expect("this program has a path");
    let objdump = Command::new("objdump").args(["-d", "--no-show-raw-insn", "-C"]).arg(&program).output();
    let objdump = objdump.expect("objdump, of binutils, runs");
    assert!(objdump.status.success(), "{}", String::from_utf8_lossy(&objdump.stderr));
    let (mut kernels, mut faults, mut current) = (0, Vec::new(), None);
    for line in String::from_utf8_lossy(&objdump.stdout).lines() {
        if line.ends_with(">:") {
            current = line.split_once('<').map(|(_, name)| name.to_owned());
            current = current.filter(|name| name.starts_with("imgvec_ann::arch::"));
            kernels += usize::from(current.is_some());
        } else if let Some(name) = &current
            && ["gather", "scatter"].iter().any(|word| line.contains(word))
        {
            faults.push(format!("{name} {line}"));
        }
    }
    assert!(kernels > 20, "found only {kernels} kernels");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
