//! Vectors of all tokens are megabytes, and the session of a server does not keep them. One test, alone in its process, as it looks at
//! the memory of the process.

#![cfg(target_os = "linux")]

mod model_support;

use std::env;
use std::process::Command;

use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::Package;
use imgvec_encoder::{Encoder, EncoderOptions};
use model_support::graph::{F32, GraphBuilder, I64, word_tokenizer};
use model_support::{Scratch, onnx_runtime, options};

const WORDS: [&str; 5] = ["unknown", "red", "green", "blue", "black"];

/// As the extension does: what is free in the allocator would hide what a run takes.
fn give_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the C library's function, which takes no pointers")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: thread-safe, and frees nothing that is in use.
        unsafe { malloc_trim(0) };
    }
}

/// Makes all threads of a process of the GNU C library allocate from one arena, as a server has it, which has one thread. What is free at the end of
/// another arena is never given back.
const ONE_ARENA: &str = "MALLOC_ARENA_MAX";

/// Large ones are in use when the run ends, and go nevertheless; so does what a run keeps for a look at it. Small ones of this graph lie apart
/// from its large blocks, so that they hold nothing in any case; `benches/memory.py` with `gemma2` shows where they do.
#[test]
fn outputs_are_given_back() {
    if !onnx_runtime("outputs_are_given_back") {
        return;
    }
    if env::var_os(ONE_ARENA).is_none() {
        let mut again = Command::new(env::current_exe().unwrap());
        let status =
            again.args(["outputs_are_given_back", "--exact", "--nocapture"]).env(ONE_ARENA, "1").status();
        assert!(status.unwrap().success());
        return;
    }
    holds_little("large", |graph| {
        let graph = graph.output("last_hidden_state", F32, &[-1, -1, DIM as i64]);
        graph.node("Sin", &["looked_up"], "last_hidden_state")
    });
    holds_little("small", |graph| {
        let graph =
            graph.output("sentence_embedding", F32, &[-1, DIM as i64]).node("Sin", &["looked_up"], "bent");
        graph.node_with("ReduceMean", &["bent"], "sentence_embedding", &[("axes", &[1]), ("keepdims", &[0])])
    });
}

const DIM: u64 = 1024;

/// `rest` makes an output of `looked_up`.
fn holds_little(what: &str, rest: impl FnOnce(GraphBuilder) -> GraphBuilder) {
    let scratch = Scratch::new();
    let table: Vec<f32> = (0..5 * DIM).map(|place| (place as f32 * 0.7).sin()).collect();
    let graph = GraphBuilder::new()
        .input("input_ids", I64, &[-1, -1])
        .floats("table", &[5, DIM], &table)
        .node("Gather", &["table", "input_ids"], "looked_up");
    scratch.write("model.onnx", rest(graph).finish());
    scratch.write("tokenizer.json", word_tokenizer(&WORDS));
    scratch.write("imgvec.toml", "[text]\nmax_length = 8192\npooling = \"mean\"");
    let memory = ProcessMemory { max_run_bytes: 2 << 30, give_back, ..ProcessMemory::default() };
    let package = Package::open(scratch.path()).unwrap();
    let mut encoder = Encoder::open(package, EncoderOptions { memory, ..options() }).unwrap();
    encoder.embed_texts(&["red"]).unwrap();
    let before = private_kilobytes();
    // States of each have 32 MB, in runs that end before their memory is seen: the first ones are looked at afterwards.
    for count in [1, 3, 3, 1] {
        let texts: Vec<String> =
            (0..count).map(|seed| WORDS[1 + seed].to_owned() + &" red".repeat(7999)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embedded = encoder.embed_texts(&texts).unwrap();
        assert_eq!(embedded.len(), count);
        let grown = private_kilobytes().saturating_sub(before);
        eprintln!("{what} output, {count} texts: {grown} kB");
        // Without the encoder's care large outputs alone have 32 and 96 MB.
        assert!(grown < 20 << 10, "{what} output, {count} texts: {grown} kB");
    }
    // The session is as good as before.
    assert_eq!(encoder.embed_texts(&["red"]).unwrap().len(), 1);
}

fn private_kilobytes() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
