use crate::{ModelError, ParameterSpec};
use safetensors::{Dtype, tensor::Metadata};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
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
    Read(ReadValues<'a>),
}

/// Fills a slice with values from a place on.
type ReadValues<'a> = Box<dyn Fn(usize, &mut [f32]) -> io::Result<()> + 'a>;

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

/// Values that are turned into bytes, or back, at a time.
const CHUNK: usize = 1 << 14;

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

/// A safetensors file of f32 tensors. They stay in the file until they are read, some values at a time: a resume must
/// not take memory that the run itself does not.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, (Vec<usize>, StoredTensor)>,
    metadata: HashMap<String, String>,
}

/// Where a tensor lies in its [`WeightFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredTensor {
    /// Bytes from the beginning of the file.
    offset: u64,
    /// Values.
    len: usize,
}

/// The longest header that is read, as the format's own library has it.
const MAX_HEADER: u64 = 100_000_000;

/// Opens a safetensors file whose tensors are f32, and reads what it says of them.
///
/// # Errors
/// `CHECKPOINT_CORRUPT` when it cannot be read, is damaged, or holds another type.
pub fn open_weights(path: &Path) -> Result<WeightFile, ModelError> {
    let unreadable = |error: io::Error| ModelError::from_io(&error, "read", path);
    let corrupt = |what: &dyn std::fmt::Display| ModelError::corrupt(path, what);
    let mut file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(unreadable)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER || len > bytes.saturating_sub(8) {
        return Err(corrupt(&format!("a header of {len} bytes in a file of {bytes}")));
    }
    let mut header = vec![0; len as usize];
    file.read_exact(&mut header).map_err(unreadable)?;
    // Offsets without gaps that agree with the shapes are checked here.
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| corrupt(&error))?;
    let begin = 8 + len;
    let mut end = begin;
    let mut tensors = BTreeMap::new();
    for (name, info) in header.tensors() {
        if info.dtype != Dtype::F32 {
            return Err(corrupt(&format!("{name} is {:?}, not F32", info.dtype)));
        }
        let (first, last) = info.data_offsets;
        end = end.max(begin + last as u64);
        let stored = StoredTensor { offset: begin + first as u64, len: (last - first) / 4 };
        tensors.insert(name, (info.shape.clone(), stored));
    }
    if end != bytes {
        return Err(corrupt(&format!("{bytes} bytes, not {end}")));
    }
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok(WeightFile { path: path.to_path_buf(), file, tensors, metadata })
}

impl WeightFile {
    /// Takes the tensor `name` out of those that are expected to be asked for.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when it is not there or has another shape.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<StoredTensor, ModelError> {
        let (found, stored) = self
            .tensors
            .remove(name)
            .ok_or_else(|| ModelError::corrupt(&self.path, format!("{name} is missing")))?;
        if found != shape {
            return Err(ModelError::corrupt(
                &self.path,
                format!("{name} has shape {found:?}, not {shape:?}"),
            ));
        }
        Ok(stored)
    }

    /// Where a model's parameters lie, in their order; the file has to hold exactly these.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when one is missing, has another shape, or is more than the model has.
    pub fn take_parameters<'a>(
        &mut self,
        specs: impl IntoIterator<Item = &'a ParameterSpec>,
    ) -> Result<Vec<StoredTensor>, ModelError> {
        let (mut stored, mut tied) = (Vec::new(), true);
        for spec in specs {
            stored.push(self.take(&spec.name, &spec.shape)?);
            tied &= spec.name != "lm_head.weight";
        }
        if tied {
            self.forget("lm_head.weight");
        }
        self.expect_empty()?;
        Ok(stored)
    }

    /// Hands the values of tensors of this file to `each`, in order and some at a time: the tensor's index, how many of
    /// its values came before, and values.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when the file ends early or cannot be read; what `each` fails with.
    pub fn read<E: From<ModelError>>(
        &mut self,
        tensors: &[StoredTensor],
        mut each: impl FnMut(usize, usize, &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let longest = tensors.iter().map(|tensor| tensor.len).max().unwrap_or(0).min(CHUNK);
        let (mut bytes, mut values) = (vec![0; 4 * longest], vec![0.0; longest]);
        let Self { file, path, .. } = self;
        for (index, tensor) in tensors.iter().enumerate() {
            file.seek(SeekFrom::Start(tensor.offset))
                .map_err(|error| ModelError::from_io(&error, "read", path))?;
            for first in (0..tensor.len).step_by(CHUNK) {
                let count = CHUNK.min(tensor.len - first);
                let (bytes, values) = (&mut bytes[..4 * count], &mut values[..count]);
                file.read_exact(bytes).map_err(|error| ModelError::from_io(&error, "read", path))?;
                for (value, word) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*word);
                }
                each(index, first, values)?;
            }
        }
        Ok(())
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
