//! Estimates the memory of a graph's run before it starts.
//!
//! A transformer's intermediate tensors grow with items x tokens x width and with items x heads x tokens
//! x tokens, and a few of each exist at a time. Width and heads come from the package's
//! configuration ([`Architecture`]), or else those of a large model are assumed. The estimate is then corrected by
//! the memory that runs were measured to take ([`Footprint`]): a graph with fused layers needs less, one
//! that expands its mask needs more. Until a graph has run, its limit is a part of the whole.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::package::Modality;

/// Runs that are estimated below this are neither measured nor made to give memory back: what they leave
/// is small beside a loaded model, and clearing it again would cost them a tenth of their time.
const SMALL_BYTES: u64 = 4 << 20;
/// A run is believed to have taken at least this much, however little was seen: it may have used memory that
/// the process had anyway.
const LEAST_SEEN_BYTES: u64 = SMALL_BYTES / 2;
/// Bytes of a 32-bit float.
const FLOAT: u64 = 4;
/// Tensors of `[items, heads, tokens, tokens]` that are alive at a time: scores and their softmax, and
/// a quarter for a mask of one head and for what lies between free blocks. Measured: 2.0 to 2.1.
const PAIR_TENSORS_QUARTERS: u64 = 9;
/// Configuration files larger than this are not ours to read.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// The sizes of a tower that decide its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Architecture {
    hidden: u64,
    intermediate: u64,
    heads: u64,
    /// Pixels of a patch's side, if the tower cuts pictures into patches.
    patch: Option<u64>,
    /// Whether a file says so.
    known: bool,
}

impl Architecture {
    /// Of a package without a word about it: the sizes of a large model (BERT large, ViT-L/14).
    const ASSUMED: Architecture =
        Architecture { hidden: 1024, intermediate: 4096, heads: 16, patch: None, known: false };

    /// What the package in `dir` says of one of its towers.
    pub fn read(dir: &Path, modality: Modality) -> Architecture {
        let json = |name: &str| -> Option<Value> {
            let path = dir.join(name);
            (path.metadata().ok()?.len() <= MAX_CONFIG_BYTES).then_some(())?;
            serde_json::from_slice(&fs::read(path).ok()?).ok()
        };
        let (transformers, open_clip) = match modality {
            Modality::Image => ("vision_config", "vision_cfg"),
            Modality::Text => ("text_config", "text_cfg"),
        };
        let of_open_clip = |config: &Value| {
            let config = config.get("model_cfg").unwrap_or(config).get(open_clip)?.clone();
            Self::of_open_clip(&config)
        };
        let of_transformers =
            |config: &Value| Self::of_transformers(config.get(transformers).unwrap_or(config));
        json("open_clip_config.json")
            .and_then(|config| of_open_clip(&config))
            .or_else(|| json("config.json").and_then(|c| of_transformers(&c).or_else(|| of_open_clip(&c))))
            .unwrap_or(Self::ASSUMED)
    }

    /// The names of `config.json`; some families have names of their own.
    fn of_transformers(config: &Value) -> Option<Architecture> {
        let number = |names: &[&str]| names.iter().find_map(|name| size(config.get(*name)?));
        let hidden = number(&["hidden_size", "dim", "d_model", "n_embd"])?;
        let heads = number(&["num_attention_heads", "n_heads", "num_heads", "n_head"])?;
        let intermediate = number(&["intermediate_size", "hidden_dim", "d_ff", "n_inner"]);
        Some(Architecture {
            hidden,
            intermediate: intermediate.unwrap_or(4 * hidden),
            heads,
            patch: number(&["patch_size"]),
            known: true,
        })
    }

    /// The names of OpenCLIP; `layers` of a convolutional tower is a list.
    fn of_open_clip(config: &Value) -> Option<Architecture> {
        config.get("layers")?.as_u64()?;
        let hidden = size(config.get("width")?)?;
        let number = |name: &str| config.get(name).and_then(size);
        let heads = number("heads").unwrap_or(hidden / number("head_width").unwrap_or(64));
        let ratio = config.get("mlp_ratio").and_then(Value::as_f64).unwrap_or(4.0).clamp(1.0, 64.0);
        Some(Architecture {
            hidden,
            intermediate: (hidden as f64 * ratio) as u64,
            heads: heads.max(1),
            patch: number("patch_size"),
            known: true,
        })
    }

    /// Bytes of a run over `items` sequences of `tokens` tokens.
    pub fn of_tokens(&self, items: u64, tokens: u64) -> u64 {
        let each = items.saturating_mul(tokens);
        // The residual stream, what a layer adds to it, inputs and output.
        let stream = each.saturating_mul(FLOAT * 4 * self.hidden);
        let feed_forward = each.saturating_mul(FLOAT * (2 * self.hidden + 3 * self.intermediate));
        let pairs =
            each.saturating_mul(tokens).saturating_mul(FLOAT * self.heads * PAIR_TENSORS_QUARTERS / 4);
        stream.saturating_add(feed_forward.max(pairs))
    }

    /// Bytes of a run over `items` pictures of so many patches, each of so many floats: patches, their copies in the
    /// graph, and attention over all of them.
    pub fn of_patches(&self, items: u64, patches: u64, length: u64) -> u64 {
        let floats = items.saturating_mul(patches).saturating_mul(length);
        floats.saturating_mul(FLOAT * 3).saturating_add(self.of_tokens(items, patches))
    }

    /// Bytes of a run over `items` pictures of so many pixels as the graph takes.
    pub fn of_pixels(&self, items: u64, height: u64, width: u64) -> u64 {
        self.of_pixels_and_tokens(items, [height, width], 0)
    }

    /// The same of a tower that takes so many tokens beside the pixels of each picture.
    pub fn of_pixels_and_tokens(&self, items: u64, [height, width]: [u64; 2], tokens: u64) -> u64 {
        let pixels = items.saturating_mul(height).saturating_mul(width);
        let patch = self.patch.unwrap_or(14).max(1);
        let patches = height.div_ceil(patch).saturating_mul(width.div_ceil(patch)).saturating_add(1);
        let tokens = patches.saturating_add(tokens);
        // The pixel values, their copy in the graph's type or order, and the patches as rows. Of a tower
        // that is not known, feature maps: 32 channels at full size.
        let floats = if self.known && self.patch.is_some() { 3 * 3 } else { 3 * 3 + 3 * 32 };
        pixels.saturating_mul(FLOAT * floats).saturating_add(self.of_tokens(items, tokens))
    }
}

/// A size of a configuration: a number that a model can have.
fn size(value: &Value) -> Option<u64> {
    value.as_u64().filter(|size| (1..=1 << 20).contains(size))
}

/// What is known of the memory of one graph in this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footprint {
    /// The most that runs took for each estimated byte.
    ratio: Option<f64>,
    /// The largest estimate of a run that told something.
    largest: u64,
    /// A run ended before anything could be seen of it.
    ended_unseen: bool,
    /// Bytes that a run may be expected to take at present.
    trusted: u64,
    /// Bytes that a run may take.
    limit: u64,
}

impl Footprint {
    pub fn new(architecture: Architecture, limit: u64) -> Self {
        let trusted = if architecture.known { limit / 3 * 2 } else { limit / 4 };
        Footprint { ratio: None, largest: 0, ended_unseen: false, trusted, limit }
    }

    /// Bytes that a run takes, by its estimate and by what is known.
    pub fn expected(&self, estimate: u64) -> u64 {
        match self.ratio {
            // A tenth for what was not seen.
            Some(ratio) => (estimate as f64 * ratio * 1.1) as u64,
            None => estimate,
        }
    }

    /// Whether a run is large enough to be measured, and to give its memory back.
    pub fn measures(&self, estimate: u64) -> bool {
        self.expected(estimate) >= SMALL_BYTES
    }

    /// Whether no run has told anything yet.
    pub fn is_unknown(&self) -> bool {
        self.ratio.is_none()
    }

    /// Whether a run should keep its memory so that it can be measured afterwards: it is larger than all that
    /// told something, and the last one ended before anything was seen.
    pub fn wants_a_look_afterwards(&self, estimate: u64) -> bool {
        self.ended_unseen && estimate / 2 >= self.largest
    }

    /// Whether a run is watched while it runs, with so many bytes kept by runs before it. One that is known
    /// to be far below the limit is not.
    pub fn watches(&self, held: u64, estimate: u64) -> bool {
        self.ratio.is_none() || held.saturating_add(self.expected(estimate)) > self.limit / 4
    }

    /// Whether a run may leave its memory to the `next` one, beside what is `held` already, even if nothing
    /// of it can be used again.
    pub fn may_keep(&self, held: u64, estimate: u64, next: u64) -> bool {
        let both = self.expected(estimate).saturating_add(self.expected(next));
        held.saturating_add(both) <= self.limit
    }

    /// Whether a run fits beside what runs before it have kept.
    pub fn fits_beside(&self, held: u64, estimate: u64) -> bool {
        held.saturating_add(self.expected(estimate)) <= self.stop_at()
    }

    /// Whether a run may start.
    pub fn fits(&self, estimate: u64) -> bool {
        self.expected(estimate) <= self.trusted
    }

    /// Whether a run could start if what is known of the graph were sure.
    pub fn may_fit(&self, estimate: u64) -> bool {
        self.expected(estimate) <= self.limit
    }

    /// Whether a trial can tell more.
    pub fn is_provisional(&self) -> bool {
        self.trusted < self.limit
    }

    /// Bytes at which a run is stopped: its measure is a little late in any case.
    pub fn stop_at(&self) -> u64 {
        self.limit + self.limit / 10
    }

    /// Takes note of what a run took, or had taken when it was stopped. `is_sure` says that it would have
    /// been seen if it had taken more.
    pub fn learn(&mut self, estimate: u64, grown: u64, is_sure: bool) {
        if grown > 0 || is_sure {
            let ratio = grown.max(LEAST_SEEN_BYTES) as f64 / estimate.max(1) as f64;
            // Of a small run little can be told; one that is twice as large tells better.
            self.ratio = Some(match self.ratio {
                Some(known) if estimate / 2 < self.largest => known.max(ratio),
                _ => ratio,
            });
            self.largest = self.largest.max(estimate);
            self.ended_unseen = false;
        } else {
            self.ended_unseen = true;
        }
        if grown > 0 {
            // Twice the tokens take at most four times the memory.
            self.trusted = self.trusted.max(grown.saturating_mul(4)).min(self.limit);
        }
    }

    /// After a trial that was as large as a run might be, the estimate is as good as it gets.
    pub fn trust(&mut self) {
        self.trusted = self.limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Architecture =
        Architecture { hidden: 768, intermediate: 3072, heads: 12, patch: Some(16), known: true };

    #[test]
    fn pairs_of_tokens_decide_for_long_texts() {
        // Measured with ONNX Runtime 1.32: 421 MB for 2,048 tokens of a BERT base, 1,633 for 4,096.
        let long = BASE.of_tokens(1, 2048);
        assert!((421 << 20..600 << 20).contains(&long), "{long}");
        let longer = BASE.of_tokens(1, 4096);
        assert!((1633 << 20..2300 << 20).contains(&longer), "{longer}");
        assert_eq!(BASE.of_tokens(8, 512), 8 * BASE.of_tokens(1, 512));
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let most = u64::MAX;
        assert_eq!(Architecture::ASSUMED.of_tokens(most, most), most);
        assert_eq!(BASE.of_pixels(most, most, most), most);
        assert_eq!(BASE.of_patches(most, most, most), most);
        assert!(!Footprint::new(BASE, 256 << 20).fits(most));
    }

    #[test]
    fn a_graph_that_takes_more_than_estimated_is_given_less() {
        let mut footprint = Footprint::new(Architecture::ASSUMED, 256 << 20);
        assert!(footprint.fits(64 << 20) && !footprint.fits(65 << 20));
        footprint.learn(64 << 20, 128 << 20, true);
        assert!(footprint.fits(100 << 20) && !footprint.fits(128 << 20));
        // And one that takes less is given more.
        let mut footprint = Footprint::new(BASE, 256 << 20);
        footprint.learn(128 << 20, 64 << 20, true);
        assert!(footprint.fits(400 << 20) && !footprint.fits(500 << 20));
        assert!(!footprint.is_provisional());
    }

    #[test]
    fn a_graph_that_takes_little_is_not_measured_for_ever() {
        let mut footprint = Footprint::new(Architecture::ASSUMED, 256 << 20);
        assert!(footprint.measures(20 << 20) && footprint.watches(0, 20 << 20));
        // Too short to be seen: the next run is looked at when it has ended.
        footprint.learn(20 << 20, 0, false);
        assert!(footprint.is_unknown() && footprint.wants_a_look_afterwards(20 << 20));
        footprint.learn(20 << 20, 0, true);
        assert!(!footprint.measures(20 << 20) && !footprint.wants_a_look_afterwards(20 << 20));
        // A larger one is, and tells better.
        assert!(footprint.measures(100 << 20) && !footprint.watches(0, 100 << 20));
        footprint.learn(100 << 20, 0, false);
        assert!(footprint.wants_a_look_afterwards(100 << 20) && !footprint.wants_a_look_afterwards(30 << 20));
        footprint.learn(100 << 20, 0, true);
        assert!(!footprint.measures(100 << 20) && footprint.measures(500 << 20));
        footprint.learn(500 << 20, 600 << 20, true);
        assert!(footprint.measures(20 << 20) && footprint.watches(0, 100 << 20));
    }

    #[test]
    fn runs_keep_memory_only_if_the_next_fits_beside_it() {
        let mut footprint = Footprint::new(BASE, 256 << 20);
        footprint.learn(100 << 20, 100 << 20, true);
        assert!(
            footprint.may_keep(0, 100 << 20, 100 << 20)
                && !footprint.may_keep(40 << 20, 100 << 20, 100 << 20)
        );
        assert!(footprint.fits_beside(100 << 20, 100 << 20) && !footprint.fits_beside(200 << 20, 100 << 20));
    }
}
