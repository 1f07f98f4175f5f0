//! Preprocessing settings as models ship them: old and new spellings, and refusals.

use imgvec_encoder::image::{
    ChannelOrder, Crop, CropRounding, Filter, Normalization, PreprocessError, Preprocessing, Resize,
    RgbImage, SettingsError, Size,
};
use serde_json::{Value, json};

fn hf(settings: Value) -> Result<Preprocessing, SettingsError> {
    Preprocessing::from_hf(&settings)
}

#[test]
fn a_clip_file_of_2022_means_what_a_file_of_today_means() {
    let old = hf(json!({
        "crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3, "size": 224
    }));
    let new = hf(json!({
        "crop_size": {"height": 224, "width": 224}, "do_convert_rgb": true, "do_center_crop": true,
        "do_normalize": true, "do_rescale": true, "do_resize": true, "do_pad": null, "pad_size": null,
        "image_processor_type": "CLIPImageProcessorFast", "device": null, "data_format": "channels_first",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224}
    }));
    let expected = Preprocessing {
        resize: Resize::ShortestEdge(224),
        filter: Filter::Bicubic,
        crop: Crop { size: Size::square(224), rounding: CropRounding::Floor, fill: [0; 3] },
        normalization: Normalization {
            scale: 1.0 / 255.0,
            offset: 0.0,
            mean: [0.48145466, 0.4578275, 0.40821073],
            std: [0.26862954, 0.26130258, 0.27577711],
        },
        channels: ChannelOrder::Rgb,
    };
    assert_eq!(old, Ok(expected.clone()));
    assert_eq!(new, Ok(expected));
}

#[test]
fn one_number_is_a_square_for_vit_and_an_edge_for_clip() {
    let vit = hf(json!({"feature_extractor_type": "ViTFeatureExtractor", "size": 384})).unwrap();
    assert_eq!((vit.resize, vit.output_size()), (Resize::Exact(Size::square(384)), (384, 384)));
    let clip =
        hf(json!({"image_processor_type": "CLIPImageProcessor", "size": 256, "crop_size": 240})).unwrap();
    assert_eq!((clip.resize, clip.output_size()), (Resize::ShortestEdge(256), (240, 240)));
}

#[test]
fn settings_nested_in_a_processor_file_are_found() {
    let nested = json!({"processor_class": "SiglipProcessor", "image_processor": {
        "image_processor_type": "SiglipImageProcessor", "size": {"height": 256, "width": 256}
    }});
    assert_eq!(hf(nested).unwrap().output_size(), (256, 256));
}

#[test]
fn wrappers_lead_to_the_settings_inside() {
    let timm = json!({
        "architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.95,
        "interpolation": "bicubic", "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "image_processor_type": "TimmWrapperImageProcessor"
    });
    assert_eq!(hf(timm).unwrap().resize, Resize::ShortestEdge(235));
    let jina = json!({
        "image_processor_type": "JinaCLIPImageProcessor", "size": 512, "resize_mode": "shortest",
        "interpolation": "bicubic", "fill_color": 0,
        "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]
    });
    assert_eq!(hf(jina).unwrap().output_size(), (512, 512));
    let open_clip =
        json!({"model_cfg": {}, "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1], "size": 256}});
    assert_eq!(Preprocessing::from_open_clip(&open_clip).unwrap().output_size(), (256, 256));
}

#[test]
fn what_would_change_pixels_unseen_is_refused_by_name() {
    let clip = |key: &str, value: Value| {
        let mut settings = json!({"image_processor_type": "CLIPImageProcessor"});
        settings[key] = value;
        hf(settings)
    };
    let unsupported = [
        ("do_pad", json!(true)),
        ("do_thumbnail", json!(true)),
        ("size", json!({"longest_edge": 512})),
        ("size", json!({"shortest_edge": 224, "longest_edge": 512})),
        ("patch_size", json!(16)),
        ("crop_pct", json!(0.9)),
        ("rescale_offset", json!(true)),
        ("do_center_crop", json!(false)),
    ];
    for (key, value) in unsupported {
        match clip(key, value.clone()) {
            Err(SettingsError::Unsupported { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key} {value}: {other:?}"),
        }
    }
    let invalid = [
        ("size", json!("large")),
        ("size", json!(0)),
        ("size", json!(1_000_000)),
        ("crop_size", json!({"height": 224})),
        ("resample", json!(9)),
        ("image_mean", json!([0.5, 0.5])),
        ("do_resize", json!("yes")),
        ("rescale_factor", json!("1/255")),
    ];
    for (key, value) in invalid {
        match clip(key, value.clone()) {
            Err(SettingsError::Invalid { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key} {value}: {other:?}"),
        }
    }
    assert!(matches!(clip("image_std", json!(0.0)), Err(SettingsError::Invalid { .. })));
    // Settings that are off, or say nothing, do no harm.
    assert!(clip("do_pad", json!(false)).is_ok());
    assert!(clip("pad_size", json!(null)).is_ok());
}

#[test]
fn unknown_processors_are_refused() {
    for name in ["Siglip2ImageProcessor", "SamImageProcessor", "CLIP", "ImageProcessor", ""] {
        let error = hf(json!({"image_processor_type": name})).unwrap_err();
        assert!(
            matches!(&error, SettingsError::Unsupported { key, .. } if key == "image_processor_type"),
            "{error}"
        );
    }
    assert_eq!(hf(json!({})), Err(SettingsError::Missing { key: "image_processor_type".into() }));
    assert_eq!(hf(json!([1])), Err(SettingsError::NotAnObject));
}

#[test]
fn settings_written_by_hand_are_checked_too() {
    let written = json!({
        "resize": {"shortest_edge": 64}, "filter": "bilinear", "crop": {"size": {"height": 64, "width": 64}},
        "normalization": {"scale": 0.00392156862745098, "mean": [0, 0, 0], "std": [1, 1, 1]}
    });
    let parsed: Preprocessing = serde_json::from_value(written.clone()).unwrap();
    let parsed = parsed.validate().unwrap();
    assert_eq!((parsed.output_size(), parsed.channels), ((64, 64), ChannelOrder::Rgb));
    for (pointer, value) in [
        ("/resize/shortest_edge", json!(0)),
        ("/crop/size/width", json!(100_000)),
        ("/normalization/std", json!([1, 0, 1])),
    ] {
        let mut broken = written.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        let parsed: Preprocessing = serde_json::from_value(broken).unwrap();
        assert!(parsed.validate().is_err(), "{pointer}");
    }
    let mut misspelled = written;
    misspelled["filtre"] = json!("bicubic");
    assert!(serde_json::from_value::<Preprocessing>(misspelled).is_err());
}

#[test]
fn a_tensor_of_the_wrong_length_is_an_error() {
    let clip = hf(json!({"image_processor_type": "CLIPImageProcessor"})).unwrap();
    let image = RgbImage::new(1, 1, vec![1, 2, 3]).unwrap();
    let expected = PreprocessError::OutputLength { expected: 3 * 224 * 224, found: 7 };
    assert_eq!(clip.apply(&image, &mut [0.0; 7]), Err(expected));
}

/// Such sides come from panoramas and from attackers. What Pillow would make in memory of the
/// first one is 1.5 GB.
#[test]
fn extremely_thin_images_take_little_memory_and_keep_their_colors() {
    let clip = hf(json!({"image_processor_type": "CLIPImageProcessor"})).unwrap();
    let siglip = hf(json!({"image_processor_type": "SiglipImageProcessor"})).unwrap();
    for (width, height) in
        [(10_000, 1), (1, 10_000), (10_000, 10), (10, 10_000), (1, 1), (1, 1_000_000), (1_000_000, 1)]
    {
        let image = RgbImage::new(width, height, [10, 20, 30].repeat((width * height) as usize)).unwrap();
        for preprocessing in [&clip, &siglip] {
            let mut tensor = vec![f32::NAN; preprocessing.output_len()];
            preprocessing.apply(&image, &mut tensor).unwrap();
            // A picture of one color stays one, whatever the filter's negative lobes do.
            for (channel, plane) in tensor.chunks_exact(224 * 224).enumerate() {
                let Normalization { scale, mean, std, .. } = preprocessing.normalization;
                let color = 10.0 * (channel + 1) as f64;
                let expected = (color * scale - mean[channel]) / std[channel];
                let off = plane.iter().map(|&value| (f64::from(value) - expected).abs()).fold(0.0, f64::max);
                assert!(off < 1e-5, "{width} x {height}: off by {off}");
            }
        }
    }
}
