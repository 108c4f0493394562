//! The two steps from compiled WebAssembly to what a browser loads. `--glue` writes the module with its JavaScript. `--pack` puts
//! all files into a folder named after their content, writes that name into the page, and lays a compressed twin beside each file
//! that is worth it.

use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// In the page, it stands for the folder's name.
const PLACEHOLDER: &str = "@VERSION@";
/// A twin that saves less than a tenth isn't worth its place.
const WORTH_TENTHS: usize = 9;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let made = match arguments.as_slice() {
        ["--glue", input, output] => glue(input, output),
        ["--pack", files, page, output] => pack(Path::new(files), Path::new(page), Path::new(output)),
        _ => Err("usage: bindgen --glue INPUT.wasm FILES_DIR | bindgen --pack FILES_DIR INDEX.html OUTPUT_DIR".into()),
    };
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn glue(input: &str, output: &str) -> Result<(), Box<dyn Error>> {
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    bindgen.input_path(input).out_name("dashboard").web(true)?;
    bindgen.typescript(false).remove_name_section(true).remove_producers_section(true);
    Ok(bindgen.generate(output)?)
}

fn pack(files: &Path, page: &Path, output: &Path) -> Result<(), Box<dyn Error>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(files)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    let contents = paths.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    let version = format!("{:016x}", hasher.finish());
    let folder = output.join(&version);
    std::fs::create_dir_all(&folder)?;
    for (path, content) in paths.iter().zip(&contents) {
        let name = path.file_name().ok_or("a file has a name")?;
        std::fs::write(folder.join(name), content)?;
        let small = compressed(content)?;
        if small.len() * 10 < content.len() * WORTH_TENTHS {
            std::fs::write(folder.join(format!("{}.br", name.to_string_lossy())), small)?;
        }
    }
    let page = std::fs::read_to_string(page)?.replace(PLACEHOLDER, &version);
    Ok(std::fs::write(output.join("index.html"), page)?)
}

fn compressed(content: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut small = vec![];
    let parameters = brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 22, size_hint: content.len(), ..Default::default() };
    brotli::BrotliCompress(&mut &content[..], &mut small, &parameters)?;
    Ok(small)
}
