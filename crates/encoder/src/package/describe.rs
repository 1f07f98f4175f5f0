//! From the files of a directory to a [`Package`].
//!
//! Each fact has one function here that lists its sources in order: `imgvec.toml`, then the file
//! that is authoritative for it, then what the family publishes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{FileRole, MalformedFile, PackageError, Unsupported};
use super::family::{self, CLIP_TOKENS, Evidence, Fill};
use super::files::PackageFiles;
use super::layout::{GraphChoice, Graphs};
use super::overrides::{ImageOverrides, Overrides, PaddingName, TextOverrides};
use super::tower::{ExternalFile, Graph, Inputs, Modality, Output, Pooling};
use super::{
    AnswerModel, Classification, Family, FindHalf, ImageTower, JointModel, Package, Padding, PatchInput,
    Preparation, QuerySettings, TextTower, answers, joint, modules,
};
use crate::image::{Patching, Preprocessing, SettingsError, Shaping};

/// Context length of a text tower whose files tell none: BERT's number of positions.
const DEFAULT_TOKENS: usize = 512;
/// No file asks for longer inputs than this; a larger number means "unlimited" in Hugging Face's
/// tokenizer files.
const MAX_TOKENS: usize = 32_768;

const TOML: &str = "imgvec.toml";

/// The configuration files, `Null` where one is not there.
struct Configs {
    overrides: Overrides,
    config: Value,
    tokenizer_config: Value,
    open_clip: Value,
    sentence_transformers: bool,
    family: Family,
}

pub(super) fn describe(
    mut files: PackageFiles,
    name: String,
    halves: Option<FindHalf<'_>>,
) -> Result<Package, PackageError> {
    let configs = Configs::read(&mut files)?;
    let overrides = &configs.overrides;
    let image_from = lender(&name, &files, &configs, Modality::Image, halves)?;
    let text_from = lender(&name, &files, &configs, Modality::Text, halves)?;
    let is_lent = |modality| match modality {
        Modality::Image => image_from.is_some(),
        Modality::Text => text_from.is_some(),
    };
    // Without a word of its own about the kind of model, it is that of the tower that is taken.
    let of_lender = image_from.as_ref().or(text_from.as_ref()).map(|lender| lender.family);
    let family = of_lender.filter(|_| configs.family == Family::Generic).unwrap_or(configs.family);
    let classification = Classification::of(family, overrides.classification.as_ref())
        .map_err(|source| configs.malformed(&files, source))?;

    let of_image = overrides.image.as_ref().and_then(|image| image.graph.as_deref());
    let of_text = overrides.text.as_ref().and_then(|text| text.graph.as_deref());
    let graphs = if image_from.is_some() && text_from.is_some() {
        Graphs::default()
    } else {
        Graphs::find(&mut files, of_image, of_text, overrides.precision, configs.family)?
    };

    let mut image = image_from.as_ref().and_then(|lender| lender.image.clone());
    let mut text = text_from.as_ref().and_then(|lender| lender.text.clone());
    let mut vision = None;
    let mut answers = None;
    for (choice, wants) in
        [(&graphs.image, Some(Modality::Image)), (&graphs.text, Some(Modality::Text)), (&graphs.whole, None)]
    {
        let Some(choice) = choice.as_ref().filter(|_| !wants.is_some_and(is_lent)) else { continue };
        let graph = open_graph(&mut files, choice)?;
        let inputs = Inputs::of(&graph)?;
        if configs.family == Family::Vilt {
            answers = Some(Arc::new(answer_model(&mut files, &configs, graph, inputs)?));
            continue;
        }
        // Inputs of other kinds belong to models of their own.
        let is_joint = configs.family == Family::EmbeddingGemma2;
        let takes = |patches: &PatchInput| {
            if patches.has_grid() { configs.family.may_take_grids() } else { is_joint }
        };
        let has_other_patches = inputs.patches.as_ref().is_some_and(|patches| !takes(patches));
        let is_generator = !inputs.past.is_empty() && inputs.pixels.is_some();
        let is_special = !inputs.features.is_empty() || is_generator;
        if (is_special && !is_joint) || has_other_patches || inputs.pixel_mask.is_some() {
            return Err(not_fed(graph, &inputs));
        }
        let takes = |modality| match modality {
            Modality::Image => inputs.pixels.is_some() || inputs.patches.is_some(),
            Modality::Text => !inputs.tokens.is_empty(),
        };
        if let Some(modality) = wants.filter(|modality| !takes(*modality)) {
            let role = match modality {
                Modality::Image => "image.graph",
                Modality::Text => "text.graph",
            };
            let source =
                MalformedFile::Setting { setting: role, expected: "a graph with an input for its modality" };
            return Err(PackageError::Malformed { path: graph.path, source });
        }
        if is_joint && inputs.patches.is_some() {
            vision = Some((graph, inputs));
            continue;
        }
        if image.is_none() && takes(Modality::Image) && wants != Some(Modality::Text) {
            image = Some(Arc::new(image_tower(&mut files, &configs, graph.clone(), inputs.clone())?));
        }
        if text.is_none() && takes(Modality::Text) && wants != Some(Modality::Image) {
            let mut tower = text_tower(&mut files, &configs, graph, inputs)?;
            let own = image.as_deref().filter(|_| image_from.is_none());
            tower.picture_size = own.and_then(ImageTower::size);
            if let (Some(patches), Some(patching)) =
                (&mut tower.inputs.patches, own.and_then(ImageTower::patching))
            {
                patches.patch_len = Some(patching.patch_len());
            }
            text = Some(Arc::new(tower));
        }
    }

    let joint = match (vision, text.as_deref()) {
        (Some((graph, inputs)), Some(tower)) => {
            Some(Arc::new(joint_model(&mut files, &configs, graph, inputs, tower)?))
        }
        _ => None,
    };
    let lenders = || image_from.iter().chain(&text_from);
    let of_lenders = || lenders().find_map(|lender| lender.dim.filter(|_| lender.truncate_dims.is_none()));
    let dim = configs.dim(image.as_deref(), text.as_deref())?.or_else(of_lenders);
    let truncate_dims = overrides.truncate_dims.or_else(|| lenders().find_map(|lender| lender.truncate_dims));
    if truncate_dims.is_some_and(|keep| keep == 0 || dim.is_some_and(|dim| keep > dim)) {
        let expected = "between 1 and the model's dimensions";
        let source = MalformedFile::Setting { setting: "truncate_dims", expected };
        return Err(configs.malformed(&files, source));
    }

    let takes_patches = image.as_deref().is_some_and(|tower| tower.patching().is_some());
    let family = if image.is_some() { family.with_patches(takes_patches) } else { family };
    let query = QuerySettings::read(&mut files, overrides.query.as_ref(), truncate_dims.or(dim))?;
    let modalities =
        [(Modality::Image, image.is_some() || joint.is_some()), (Modality::Text, text.is_some())];
    let mut own = [&graphs.image, &graphs.text, &graphs.whole].into_iter().flatten();
    let lent = image_from.as_ref().or(text_from.as_ref()).map(|lender| lender.precision);
    let precision =
        if is_lent(Modality::Image) { lent } else { own.next().map(|choice| choice.precision).or(lent) };
    let mut licenses: Vec<String> = license(&mut files, overrides).into_iter().collect();
    licenses.extend(lenders().filter_map(|lender| lender.license.clone()));
    licenses.dedup();
    let prompts_of = text_from.as_ref().map(|lender| lender.prompts.clone()).unwrap_or_default();
    let prompts = prompts_of.into_iter().chain(prompts(&mut files, overrides.prompts.as_ref())?).collect();
    Ok(Package {
        name,
        dir: files.dir().to_owned(),
        family,
        modalities: modalities
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(modality, _)| modality)
            .collect(),
        dim: truncate_dims.or(dim),
        precision: precision.expect("a package has a graph"),
        license: (!licenses.is_empty()).then(|| licenses.join(" and ")),
        classification,
        query,
        normalize: overrides.normalize.unwrap_or(true),
        truncate_dims,
        image,
        text,
        joint,
        answers,
        prompts,
        image_from,
        text_from,
        files,
    })
}

/// The package that lends the tower for `modality`, if `imgvec.toml` names one.
fn lender(
    name: &str,
    files: &PackageFiles,
    configs: &Configs,
    modality: Modality,
    halves: Option<FindHalf<'_>>,
) -> Result<Option<Box<Package>>, PackageError> {
    let overrides = &configs.overrides;
    let (setting, lender, is_alone) = match modality {
        Modality::Image => {
            let table = overrides.image.clone().unwrap_or_default();
            let alone = ImageOverrides { package: table.package.clone(), ..Default::default() };
            ("image.package", table.package.clone(), table == alone)
        }
        Modality::Text => {
            let table = overrides.text.clone().unwrap_or_default();
            let alone = TextOverrides { package: table.package.clone(), ..Default::default() };
            ("text.package", table.package.clone(), table == alone)
        }
    };
    let Some(lender) = lender else { return Ok(None) };
    if !is_alone {
        let expected = "the only key of its table, as the tower is taken as that package has it";
        return Err(configs.malformed(files, MalformedFile::Setting { setting, expected }));
    }
    if matches!(configs.family, Family::EmbeddingGemma2 | Family::Vilt) {
        let expected = "left out in a package that takes pictures and words in one input";
        return Err(configs.malformed(files, MalformedFile::Setting { setting, expected }));
    }
    let Some(find) = halves else {
        return Err(PackageError::NestedHalf { package: name.to_owned() });
    };
    let wrap = |source| PackageError::Half { modality, package: lender.clone(), source: Box::new(source) };
    let package = find(&lender).map_err(wrap)?;
    let has_tower = match modality {
        Modality::Image => package.image.is_some(),
        Modality::Text => package.text.is_some(),
    };
    if !has_tower || package.joint.is_some() {
        return Err(wrap(PackageError::NoHalf { package: lender.clone(), modality }));
    }
    Ok(Some(Box::new(package)))
}

/// The error of a graph with inputs that its family has no use for.
fn not_fed(graph: Graph, inputs: &Inputs) -> PackageError {
    let of_patches = inputs.patches.iter().flat_map(|patches| patches.names().into_iter().map(str::to_owned));
    let of_features = inputs.features.iter().map(|input| input.name.clone());
    let of_mask = inputs.pixel_mask.iter().map(|input| input.name.clone());
    let of_past = inputs.past.iter().filter(|_| inputs.pixels.is_some()).map(|input| input.name.clone());
    let unsupported = of_patches.chain(of_features).chain(of_mask).chain(of_past).collect();
    PackageError::UnsupportedInputs { path: graph.path, inputs: graph.outline.inputs, unsupported }
}

/// The vision encoder of a model that takes pictures and words in one input.
fn joint_model(
    files: &mut PackageFiles,
    configs: &Configs,
    graph: Graph,
    inputs: Inputs,
    text: &TextTower,
) -> Result<JointModel, PackageError> {
    let patches = inputs.patches.clone().expect("a vision encoder takes patches");
    let overrides = configs.overrides.image.clone().unwrap_or_default();
    let (patching_file, patching) = patching(files, overrides.preprocessing, Patching::gemma_from_hf)?;
    let output = overrides.output.unwrap_or_else(|| "image_features".to_owned());
    let is_there = graph.outline.outputs.iter().any(|value| value.name == output && value.element.is_float());
    let takes_pictures = text.inputs.features.iter().any(|input| input.of_pictures);
    let width = joint::width(&graph, &output, &text.inputs, &configs.config).filter(|_| is_there);
    let (Some(width), true) = (width, takes_pictures) else {
        let (path, outputs) = (graph.path, graph.outline.outputs);
        return Err(PackageError::NoOutput { path, wanted: Some(output), outputs });
    };
    same_patches(&graph, &patches, &patching)?;
    let Some([image_token, begin_token, end_token]) = joint::tokens(&configs.config) else {
        let path = files.dir().join("config.json");
        let source = MalformedFile::Setting { setting: "image_token_id", expected: "the number of a token" };
        return Err(PackageError::Malformed { path, source });
    };
    Ok(JointModel {
        graph,
        patches,
        output,
        patching,
        patching_file,
        width,
        image_token,
        begin_token,
        end_token,
    })
}

/// The graph that answers questions, and its answers.
fn answer_model(
    files: &mut PackageFiles,
    configs: &Configs,
    graph: Graph,
    inputs: Inputs,
) -> Result<AnswerModel, PackageError> {
    let Some(pixels) = inputs.pixels.clone().filter(|_| inputs.both()) else {
        return Err(PackageError::Unsupported { path: graph.path, feature: Unsupported::NoQuestion });
    };
    if inputs.patches.is_some() || !inputs.features.is_empty() || !inputs.past.is_empty() {
        return Err(not_fed(graph, &inputs));
    }
    if pixels.size.is_some() {
        return Err(PackageError::Unsupported { path: graph.path, feature: Unsupported::OneShape });
    }
    let labels = answers::read(&configs.config).map_err(|expected| PackageError::Malformed {
        path: files.dir().join("config.json"),
        source: MalformedFile::Setting { setting: answers::SETTING, expected },
    })?;
    let overrides = configs.overrides.image.clone().unwrap_or_default();
    let (shaping_file, value) = processor(files, overrides.preprocessing)?;
    let shaping = Shaping::from_hf(&value).map_err(|error| PackageError::Malformed {
        path: shaping_file.clone(),
        source: MalformedFile::Preprocessing(error),
    })?;
    let pixel_mask = inputs.pixel_mask.clone();
    let questions = text_tower(files, configs, graph, inputs)?;
    if let Some(scores) = questions.output.dim.filter(|&scores| scores != labels.len()) {
        let source = MalformedFile::Answers { answers: labels.len(), scores };
        return Err(PackageError::Malformed { path: files.dir().join("config.json"), source });
    }
    Ok(AnswerModel { questions, pixels, pixel_mask, shaping, shaping_file, labels })
}

/// How pictures become patches, and the file that says so.
fn patching(
    files: &mut PackageFiles,
    overrides: Option<Map<String, Value>>,
    read: fn(&Value) -> Result<Patching, SettingsError>,
) -> Result<(PathBuf, Patching), PackageError> {
    let (path, value) = processor(files, overrides)?;
    match read(&value) {
        Ok(patching) => Ok((path, patching)),
        Err(error) => Err(PackageError::Malformed { path, source: MalformedFile::Preprocessing(error) }),
    }
}

/// Checks that a graph takes the patches that preprocessing makes.
fn same_patches(graph: &Graph, input: &PatchInput, patching: &Patching) -> Result<(), PackageError> {
    let taken = [input.patches, input.patch_len];
    let made = [patching.patches(), patching.patch_len()];
    if taken.iter().zip(made).any(|(taken, made)| taken.is_some_and(|taken| taken != made)) {
        let path = graph.path.clone();
        return Err(PackageError::PatchesDiffer { path, graph: taken, preprocessing: made });
    }
    Ok(())
}

/// The settings of the image processor of `transformers`, and the file that has them.
fn processor(
    files: &mut PackageFiles,
    overrides: Option<Map<String, Value>>,
) -> Result<(PathBuf, Value), PackageError> {
    let of_processor = files.json(Path::new("processor_config.json"))?;
    let of_processor = of_processor.and_then(|value| value.get("image_processor").cloned());
    let (name, value) = match of_processor {
        Some(value) => ("processor_config.json", Some(value)),
        None => ("preprocessor_config.json", files.json(Path::new("preprocessor_config.json"))?),
    };
    let path = files.dir().join(name);
    let Some(mut value) = value else {
        return Err(PackageError::Missing { path, role: FileRole::Preprocessing });
    };
    if let (Some(overrides), Some(object)) = (overrides, value.as_object_mut()) {
        object.extend(overrides);
    }
    Ok((path, value))
}

/// Texts put before an input, by the name of a use, as sentence-transformers keeps them.
fn prompts(
    files: &mut PackageFiles,
    overrides: Option<&BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>, PackageError> {
    let config = files.json(Path::new("config_sentence_transformers.json"))?.unwrap_or(Value::Null);
    let named = config["prompts"].as_object().into_iter().flatten();
    let text = |(name, prompt): (&String, &Value)| Some((name.clone(), prompt.as_str()?.to_owned()));
    let own = overrides.into_iter().flatten().map(|(name, prompt)| (name.clone(), prompt.clone()));
    Ok(named.filter_map(text).chain(own).collect())
}

fn open_graph(files: &mut PackageFiles, choice: &GraphChoice) -> Result<Graph, PackageError> {
    let outline = files.outline(&choice.file)?;
    let beside = choice.file.parent().unwrap_or(Path::new(""));
    let mut bytes = files.require(&choice.file, FileRole::Graph)?;
    let mut external = Vec::new();
    for location in outline.external.keys() {
        let name = beside.join(location);
        bytes += files.require(&name, FileRole::ExternalData)?;
        let real = files.real(&name, FileRole::ExternalData)?;
        external.push(ExternalFile { location: location.clone(), real });
    }
    Ok(Graph {
        path: files.dir().join(&choice.file),
        real: files.real(&choice.file, FileRole::Graph)?,
        file: choice.file.clone(),
        outline,
        external,
        bytes,
    })
}

impl Configs {
    fn read(files: &mut PackageFiles) -> Result<Self, PackageError> {
        let overrides = match files.text(Path::new(TOML))? {
            None => Overrides::default(),
            Some(text) => toml::from_str(&text).map_err(|error| PackageError::Malformed {
                path: files.dir().join(TOML),
                source: MalformedFile::Toml(Box::new(error)),
            })?,
        };
        let mut json = |name: &str| files.json(Path::new(name)).map(|value| value.unwrap_or(Value::Null));
        let config = json("config.json")?;
        let mut tokenizer_config = json("tokenizer_config.json")?;
        if tokenizer_config.is_null() {
            tokenizer_config = json("textual/tokenizer_config.json")?;
        }
        // OpenCLIP's own file wraps the model's configuration; Immich stores it as config.json.
        let wrapped = json("open_clip_config.json")?;
        let open_clip = if wrapped.is_null() && config["vision_cfg"].is_object() {
            config.clone()
        } else {
            wrapped["model_cfg"].clone()
        };
        let sentence_transformers =
            files.exists(Path::new("modules.json"))? || files.exists(Path::new("1_Pooling/config.json"))?;
        // A Hugging Face export of an OpenCLIP model keeps open_clip_config.json beside a config.json
        // that describes the graphs better.
        let describes_hf = config["model_type"].is_string();
        let dir_name = files.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let family = overrides.family.unwrap_or_else(|| {
            family::detect(&Evidence {
                config: &config,
                open_clip: if describes_hf { &Value::Null } else { &open_clip },
                tokenizer_config: &tokenizer_config,
                sentence_transformers,
                dir_name: &dir_name,
            })
        });
        Ok(Configs { overrides, config, tokenizer_config, open_clip, sentence_transformers, family })
    }

    fn malformed(&self, files: &PackageFiles, source: MalformedFile) -> PackageError {
        PackageError::Malformed { path: files.dir().join(TOML), source }
    }

    /// A number of the text tower's configuration: in `text_config` of a two-tower model, at the top
    /// of a text encoder's own file.
    fn text_number(&self, key: &str) -> Option<usize> {
        let number = |value: &Value| usize::try_from(value[key].as_u64()?).ok();
        if self.config["text_config"].is_object() {
            number(&self.config["text_config"])
        } else if self.config["vision_config"].is_object() {
            None
        } else {
            number(&self.config)
        }
    }

    /// Dimensions of the embeddings: what the graphs declare, then the configuration.
    fn dim(
        &self,
        image: Option<&ImageTower>,
        text: Option<&TextTower>,
    ) -> Result<Option<usize>, PackageError> {
        let of_image = image.and_then(|tower| tower.output.dim);
        let of_text = text.and_then(TextTower::dim);
        if let (Some(image), Some(text)) = (of_image, of_text)
            && image != text
        {
            return Err(PackageError::TowersDiffer { image, text });
        }
        let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        let rules = self.family.rules();
        let configured = || {
            if rules.open_clip && !self.open_clip.is_null() {
                return number(&self.open_clip["embed_dim"]);
            }
            let at = |path: &[&str]| number(path.iter().fold(&self.config, |value, key| &value[*key]));
            rules.dim.iter().find_map(|path| at(path))
        };
        Ok(of_image.or(of_text).or_else(configured))
    }
}

fn image_tower(
    files: &mut PackageFiles,
    configs: &Configs,
    graph: Graph,
    inputs: Inputs,
) -> Result<ImageTower, PackageError> {
    let overrides = configs.overrides.image.clone().unwrap_or_default();
    let pooling = overrides.pooling.map_or(configs.family.rules().image_pooling, Pooling::from);
    let wanted = overrides.output.as_deref();
    let output = Output::of(&graph, Modality::Image, configs.family, wanted, pooling, inputs.both())?;
    if let Some(patches) = &inputs.patches {
        let (preprocessing_file, patching) =
            patching(files, overrides.preprocessing, Patching::naflex_from_hf)?;
        same_patches(&graph, patches, &patching)?;
        let preparation = Preparation::Patches(patching);
        return Ok(ImageTower { graph, inputs, output, preparation, preprocessing_file });
    }
    let (preprocessing_file, preprocessing) = preprocessing(files, overrides.preprocessing)?;
    let (height, width) = preprocessing.output_size();
    let made = (width as usize, height as usize);
    if let Some(taken) = inputs.pixels.as_ref().and_then(|pixels| pixels.size)
        && taken != made
    {
        return Err(PackageError::ImageSizeDiffers { path: graph.path, graph: taken, preprocessing: made });
    }
    let preparation = Preparation::Tensor(preprocessing);
    Ok(ImageTower { graph, inputs, output, preparation, preprocessing_file })
}

/// The preprocessing and the file that it was read from.
fn preprocessing(
    files: &mut PackageFiles,
    overrides: Option<Map<String, Value>>,
) -> Result<(PathBuf, Preprocessing), PackageError> {
    type Reader = fn(&Value) -> Result<Preprocessing, SettingsError>;
    let sources: [(&str, Option<&str>, Reader); 6] = [
        ("preprocessor_config.json", None, Preprocessing::from_hf),
        ("processor_config.json", Some("image_processor"), Preprocessing::from_hf),
        ("open_clip_config.json", Some("preprocess_cfg"), Preprocessing::from_open_clip),
        ("visual/preprocess_cfg.json", None, Preprocessing::from_open_clip),
        ("preprocess_cfg.json", None, Preprocessing::from_open_clip),
        ("config.json", Some("pretrained_cfg"), Preprocessing::from_timm),
    ];
    let mut found = None;
    for (name, part, read) in sources {
        let value = files.json(Path::new(name))?;
        let value = match part {
            Some(key) => value.and_then(|value| value.get(key).cloned()),
            None => value,
        };
        if let Some(value) = value {
            found = Some((name, value, read));
            break;
        }
    }
    let (name, mut value, read) = match (found, &overrides) {
        (Some(found), _) => found,
        // imgvec.toml alone: CLIP's rules for everything that it leaves out.
        (None, Some(_)) => {
            let base = serde_json::json!({ "image_processor_type": "CLIPImageProcessor" });
            (TOML, base, Preprocessing::from_hf as Reader)
        }
        (None, None) => {
            let path = files.dir().join("preprocessor_config.json");
            return Err(PackageError::Missing { path, role: FileRole::Preprocessing });
        }
    };
    let path = files.dir().join(name);
    if let (Some(overrides), Some(object)) = (overrides, value.as_object_mut()) {
        object.extend(overrides);
    }
    match read(&value) {
        Ok(preprocessing) => Ok((path, preprocessing)),
        Err(error) => Err(PackageError::Malformed { path, source: MalformedFile::Preprocessing(error) }),
    }
}

fn text_tower(
    files: &mut PackageFiles,
    configs: &Configs,
    graph: Graph,
    inputs: Inputs,
) -> Result<TextTower, PackageError> {
    let overrides = configs.overrides.text.clone().unwrap_or_default();
    let family = configs.family;
    let wanted = overrides.output.as_deref();
    let rules = family.rules();
    let mut output = Output::of(&graph, Modality::Text, family, wanted, rules.text_pooling, inputs.both())?;
    // Any other output of such a model is made of these, with all that its modules do.
    let is_of_tokens = matches!(&*output.name, "last_hidden_state" | "token_embeddings");
    let behind = configs.sentence_transformers && is_of_tokens;
    let modules = if behind { modules::read(files, output.dim)? } else { Vec::new() };
    if let Some(pooling) = overrides.pooling {
        output.pooling = pooling.into();
    } else if behind {
        output.pooling = sentence_pooling(files)?;
    }

    let tokenizer = match overrides.tokenizer {
        Some(tokenizer) => tokenizer,
        None if files.exists(Path::new("textual/tokenizer.json"))? => "textual/tokenizer.json".into(),
        None => "tokenizer.json".into(),
    };
    files.require(&tokenizer, FileRole::Tokenizer)?;

    let fixed = inputs.tokens.iter().find_map(|input| input.tokens);
    let mut max_length = match overrides.max_length {
        Some(max_length) => max_length,
        None => max_length(files, configs)?,
    };
    if let Some(fixed) = fixed {
        max_length = fixed;
    }
    if !(2..=MAX_TOKENS).contains(&max_length) {
        let source = MalformedFile::Setting { setting: "text.max_length", expected: "between 2 and 32768" };
        return Err(configs.malformed(files, source));
    }
    let fill = match overrides.padding {
        Some(padding) => padding == PaddingName::MaxLength,
        None => sees_padding(configs),
    };
    let open_clip_tokenizer =
        configs.open_clip.is_object() && configs.open_clip["text_cfg"]["hf_tokenizer_name"].is_null();
    Ok(TextTower {
        output,
        modules,
        tokenizer_file: files.real(&tokenizer, FileRole::Tokenizer)?,
        tokenizer: files.dir().join(tokenizer),
        max_length,
        padding: if fill || fixed.is_some() { Padding::Fixed(max_length) } else { Padding::Longest },
        // OpenCLIP's own tokenizer fills up with zeros, whatever the exported tokenizer says.
        pad_id: overrides.pad_id.or(open_clip_tokenizer.then_some(0)),
        pad_token: token_text(&configs.tokenizer_config["pad_token"]),
        pad_left: configs.tokenizer_config["padding_side"] == "left",
        mask_padding: !rules.sigmoid,
        prompt: prompt(files, overrides.prompt)?,
        // Elsewhere the tokenizer's own normalizer does what is needed.
        lowercase: overrides.lowercase.unwrap_or_else(|| {
            let told = configs.tokenizer_config["do_lower_case"].as_bool();
            rules.lowercase.is_some_and(|unless_told| told.unwrap_or(unless_told))
        }),
        vocab_size: configs.text_number("vocab_size"),
        picture_size: None,
        graph,
        inputs,
    })
}

/// A special token in `tokenizer_config.json`: its text, or an object around it.
fn token_text(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

/// Whether the tower's result depends on padding, so that text must be filled up as in training:
/// SigLIP has no mask, and MobileCLIP and some OpenCLIP towers look at all positions. A causal tower
/// that reads its result at the end of the text does not see what follows it.
fn sees_padding(configs: &Configs) -> bool {
    match configs.family.rules().fill {
        Fill::Longest => return false,
        Fill::Context => return true,
        Fill::OpenClip => {}
    }
    let text = &configs.open_clip["text_cfg"];
    let by_end = matches!(text["pool_type"].as_str(), None | Some("argmax" | "eos"));
    let masked = text["hf_model_name"].is_string();
    !masked && (text["no_causal_mask"] == Value::Bool(true) || !by_end)
}

/// Most tokens of an input: what sentence-transformers says, what the family publishes, what the
/// tokenizer says, and never more than there are positions.
fn max_length(files: &mut PackageFiles, configs: &Configs) -> Result<usize, PackageError> {
    let number = |value: &Value| {
        value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|&number| number <= MAX_TOKENS)
    };
    let positions = configs.text_number("max_position_embeddings").map(|positions| {
        // RoBERTa counts positions from the padding token's id plus one.
        let kind = configs.config["model_type"].as_str().unwrap_or_default();
        let offset = matches!(kind, "roberta" | "xlm-roberta" | "camembert" | "mpnet");
        positions.saturating_sub(if offset { 2 } else { 0 })
    });
    let sentence = match files.json(Path::new("sentence_bert_config.json"))? {
        Some(value) => number(&value["max_seq_length"]),
        None => None,
    };
    let rules = configs.family.rules();
    let told = sentence.or_else(|| match rules.context {
        None => number(&configs.tokenizer_config["model_max_length"]),
        Some(published) if configs.open_clip.is_null() => Some(positions.unwrap_or(published)),
        Some(_) => Some(number(&configs.open_clip["text_cfg"]["context_length"]).unwrap_or(CLIP_TOKENS)),
    });
    let limit = positions.unwrap_or(MAX_TOKENS);
    Ok(told.or(positions).unwrap_or(DEFAULT_TOKENS).min(limit).min(rules.most.unwrap_or(MAX_TOKENS)))
}

/// The pooling that sentence-transformers states for token vectors.
fn sentence_pooling(files: &mut PackageFiles) -> Result<Pooling, PackageError> {
    let path = Path::new("1_Pooling/config.json");
    let Some(config) = files.json(path)? else { return Ok(Pooling::Mean) };
    let flags = config.as_object().into_iter().flatten();
    let set = flags.filter(|(_, value)| **value == Value::Bool(true));
    let mut modes: Vec<&str> = set.filter_map(|(key, _)| key.strip_prefix("pooling_mode_")).collect();
    modes.extend(config["pooling_mode"].as_str());
    if modes.is_empty() {
        modes.push("mean_tokens");
    }
    match modes[..] {
        ["cls_token" | "cls"] => Ok(Pooling::First),
        ["lasttoken"] => Ok(Pooling::Last),
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["mean_sqrt_len_tokens" | "mean_sqrt_len"] => Ok(Pooling::MeanSqrtLength),
        ["max_tokens" | "max"] => Ok(Pooling::Max),
        _ => Err(PackageError::Unsupported {
            path: files.dir().join(path),
            feature: Unsupported::Pooling(modes.join("+")),
        }),
    }
}

/// The text put before every input: sentence-transformers applies the default prompt by itself.
fn prompt(files: &mut PackageFiles, wanted: Option<String>) -> Result<String, PackageError> {
    if let Some(prompt) = wanted {
        return Ok(prompt);
    }
    let config = files.json(Path::new("config_sentence_transformers.json"))?.unwrap_or(Value::Null);
    let prompt = config["default_prompt_name"].as_str().and_then(|name| config["prompts"][name].as_str());
    Ok(prompt.unwrap_or_default().to_owned())
}

/// The license: `imgvec.toml`, then the front matter of the model card. The card decides nothing, so
/// that one that cannot be read is no reason to refuse the model.
fn license(files: &mut PackageFiles, overrides: &Overrides) -> Option<String> {
    if overrides.license.is_some() {
        return overrides.license.clone();
    }
    let card = files.text(Path::new(super::digest::CARD)).ok()??;
    let mut lines = card.lines();
    if lines.next()?.trim() != "---" {
        return None;
    }
    let mut front = lines.take_while(|line| line.trim() != "---");
    let license = front.find_map(|line| line.strip_prefix("license:"))?;
    let license = license.trim().trim_matches(['"', '\'']);
    (!license.is_empty()).then(|| license.to_owned())
}
