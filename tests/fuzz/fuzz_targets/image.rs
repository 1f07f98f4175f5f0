//! Any bytes as an image: no panic, no memory beyond the limits, and a header that tells the truth.

#![no_main]

use imgvec_encoder::image::{ImageError, ImageLimits, Preprocessing, decode, decode_frame, info};
use imgvec_encoder::interrupt::never_interrupted;
use libfuzzer_sys::fuzz_target;

/// Small, so that the fuzzer spends its time on structure and not on pixels.
const LIMITS: ImageLimits = ImageLimits {
    max_pixels: 1 << 18,
    max_input_bytes: 1 << 20,
    max_decoder_bytes: 16 << 20,
    libheif: || None,
};

fuzz_target!(|data: &[u8]| {
    let header = info(data, &LIMITS);
    if let Err(ImageError::Corrupt { reason, .. }) = decode_frame(data, 3, &LIMITS, never_interrupted) {
        assert!(!reason.contains("decoder failed"), "{reason}");
    }
    match decode(data, &LIMITS, never_interrupted) {
        Ok(image) => {
            let header = header.expect("a picture that decodes has a header");
            let sides = (image.width(), image.height());
            let stored = if header.orientation >= 5 { (sides.1, sides.0) } else { sides };
            assert_eq!(stored, (header.width, header.height));
            let settings = serde_json::json!({
                "image_processor_type": "CLIPImageProcessor", "size": 16, "crop_size": 16
            });
            let preprocessing = Preprocessing::from_hf(&settings).expect("fixed settings");
            let mut tensor = vec![f32::NAN; preprocessing.output_len()];
            preprocessing.apply(&image, &mut tensor).expect("a tensor of the right length");
            assert!(tensor.iter().all(|value| value.is_finite()));
        }
        // The decoder panicked and was caught, which is a bug of the decoder all the same.
        Err(ImageError::Corrupt { reason, .. }) => assert!(!reason.contains("decoder failed"), "{reason}"),
        Err(_) => {}
    }
});
