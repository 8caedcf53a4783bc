//! Compiles `proto/` into Rust and into a descriptor set per contract that keeps comments and options, without protoc.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut descriptors = compile("upbridge", &out)?;
    // What the other contract imports of this one is known already.
    let other = compile("creatorup", &out)?.file.into_iter().filter(|file| file.package() == "creatorup.v1");
    descriptors.file.extend(other);

    let mut prost = prost_build::Config::new();
    prost.enable_type_names().btree_map(["."]).bytes(["."]);
    // Option definitions are read from the descriptors at run time; nobody needs them as Rust types.
    descriptors.file.retain(|file| !matches!(file.package(), "buf.validate" | "google.api"));
    tonic_prost_build::configure()
        .codec_path("crate::codec::ValidatingCodec")
        .build_transport(false)
        .compile_fds_with_config(descriptors, prost)?;
    Ok(())
}

/// Compiles `proto/<name>/v1` with what it imports, and writes its descriptor set for the run time.
fn compile(name: &str, out: &Path) -> Result<FileDescriptorSet, Box<dyn std::error::Error>> {
    let mut files = contract_files(&Path::new("proto").join(name).join("v1"))?;
    files.sort();
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    // The encoded form keeps the option extensions; prost's own descriptor types would drop them.
    fs::write(out.join(format!("{name}_descriptor.bin")), compiler.encode_file_descriptor_set())?;
    Ok(compiler.file_descriptor_set())
}

fn contract_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| path.as_ref().is_ok_and(|path| path.extension().is_some_and(|extension| extension == "proto")))
        .map(|path| path.map(|path| path.strip_prefix("proto").map(Path::to_path_buf).unwrap_or(path)))
        .collect()
}
