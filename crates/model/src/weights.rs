use crate::ModelError;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// An f32 tensor on its way into a file.
pub struct NamedTensor<'a> {
    name: String,
    shape: Vec<usize>,
    source: Source<'a>,
}

enum Source<'a> {
    Values(Cow<'a, [f32]>),
    Read(Read<'a>),
}

/// Fills a slice with values from a place on.
type Read<'a> = Box<dyn Fn(usize, &mut [f32]) -> io::Result<()> + 'a>;

impl<'a> NamedTensor<'a> {
    /// `values` row-major, as many as `shape` says.
    pub fn new(name: String, shape: Vec<usize>, values: impl Into<Cow<'a, [f32]>>) -> Self {
        let values = values.into();
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { name, shape, source: Source::Values(values) }
    }

    /// A tensor whose values are asked for while it is written, some at a time: `read(first, into)` fills `into` with
    /// those from `first` on.
    pub fn reading(
        name: String,
        shape: Vec<usize>,
        read: impl Fn(usize, &mut [f32]) -> io::Result<()> + 'a,
    ) -> Self {
        Self { name, shape, source: Source::Read(Box::new(read)) }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn write(&self, file: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut put = |values: &[f32]| {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            file.write_all(&bytes)
        };
        match &self.source {
            Source::Values(values) => values.chunks(CHUNK).try_for_each(put),
            Source::Read(read) => {
                let mut values = vec![0.0; CHUNK.min(self.len())];
                for first in (0..self.len()).step_by(CHUNK) {
                    let count = CHUNK.min(self.len() - first);
                    read(first, &mut values[..count])?;
                    put(&values[..count])?;
                }
                Ok(())
            }
        }
    }
}

/// Values that are turned into bytes at a time.
const CHUNK: usize = 1 << 16;

/// What a file that was written holds, for the manifest that vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDigest {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
}

/// A new file that is digested on its way to the disk, so that nobody has to read it again for that.
struct DigestedFile {
    file: File,
    bytes: u64,
    hash: Sha256,
}

impl DigestedFile {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, bytes: 0, hash: Sha256::new() })
    }

    fn sync(self) -> io::Result<FileDigest> {
        self.file.sync_all()?;
        let sha256 = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(FileDigest { bytes: self.bytes, sha256 })
    }
}

impl Write for DigestedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a safetensors file and syncs it to the disk: equal contents give equal bytes.
///
/// The format is eight bytes of the header's length, the header (JSON, padded with spaces to a multiple of eight), then
/// the values, little endian. It is written here because the library's own writer makes files that only their owner
/// can read and offers no sync.
///
/// # Errors
/// `DISK_FULL`, `NOT_WRITABLE`.
pub fn write_weights(
    path: &Path,
    mut tensors: Vec<NamedTensor<'_>>,
    metadata: (&str, &str),
) -> Result<FileDigest, ModelError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({metadata.0: metadata.1}));
    let mut offset = 0;
    for tensor in &tensors {
        let NamedTensor { name, shape, .. } = tensor;
        let end = offset + tensor.len() * 4;
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let write = |path: &Path| -> io::Result<FileDigest> {
        let mut file = BufWriter::with_capacity(1 << 20, DigestedFile::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| tensor.write(&mut file))?;
        file.into_inner().map_err(|error| error.into_error())?.sync()
    };
    write(path).map_err(|error| ModelError::from_io(&error, "write", path))
}

/// Writes a small file and syncs it to the disk.
///
/// # Errors
/// `DISK_FULL`, `NOT_WRITABLE`.
pub fn write_synced(path: &Path, contents: &[u8]) -> Result<FileDigest, ModelError> {
    DigestedFile::create(path)
        .and_then(|mut file| {
            file.write_all(contents)?;
            file.sync()
        })
        .map_err(|error| ModelError::from_io(&error, "write", path))
}

/// The f32 tensors of a safetensors file, taken out one by one.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
}

/// Reads a safetensors file whose tensors are f32.
///
/// # Errors
/// `CHECKPOINT_CORRUPT` when it cannot be read, is damaged, or holds another type.
pub fn read_weights(path: &Path) -> Result<WeightFile, ModelError> {
    let bytes = std::fs::read(path).map_err(|error| ModelError::from_io(&error, "read", path))?;
    let corrupt = |error: SafeTensorError| ModelError::corrupt(path, error);
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(corrupt)?;
    let file = SafeTensors::deserialize(&bytes).map_err(corrupt)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(ModelError::corrupt(path, format!("{name} is {:?}, not F32", view.dtype())));
        }
        let (words, _) = view.data().as_chunks::<4>();
        let values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        tensors.insert(name.to_string(), (view.shape().to_vec(), values));
    }
    Ok(WeightFile {
        path: path.to_path_buf(),
        tensors,
        metadata: header.metadata().clone().unwrap_or_default(),
    })
}

impl WeightFile {
    /// Takes the tensor `name` out.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when it is not there or has another shape.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let (found, values) = self
            .tensors
            .remove(name)
            .ok_or_else(|| ModelError::corrupt(&self.path, format!("{name} is missing")))?;
        if found != shape {
            return Err(ModelError::corrupt(
                &self.path,
                format!("{name} has shape {found:?}, not {shape:?}"),
            ));
        }
        Ok(values)
    }

    /// Drops a tensor that may be there and is not needed.
    pub fn forget(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// The value of `key` in the file's metadata.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when it is not there.
    pub fn metadata(&self, key: &str) -> Result<&str, ModelError> {
        self.metadata
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| ModelError::corrupt(&self.path, format!("the metadata has no {key}")))
    }

    /// An error of this file.
    pub fn corrupt(&self, what: impl std::fmt::Display) -> ModelError {
        ModelError::corrupt(&self.path, what)
    }

    /// Checks that every tensor was taken.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` naming one that was not.
    pub fn expect_empty(&self) -> Result<(), ModelError> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(ModelError::corrupt(
                &self.path,
                format!("{name} does not belong to the model's configuration"),
            )),
        }
    }
}
