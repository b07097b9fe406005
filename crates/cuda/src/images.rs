//! The compiled kernels, one module a source file.

/// What `kernels/NAME.cu` was compiled to.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The name of its file, without the ending.
    pub name: &'static str,
    /// Machine code for compute capability 8.0, which runs on 8.6 and 8.9 too.
    pub sm_80: &'static [u8],
    /// Machine code for compute capability 9.0 alone.
    pub sm_90a: &'static [u8],
    /// For every other from 8.0 on: the driver compiles it when it is loaded.
    pub ptx: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// What a device loads of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Machine code.
    Binary(&'static [u8]),
    /// Text for the driver's compiler.
    Ptx(&'static str),
}

impl Image {
    /// The code for a compute capability, major and minor.
    pub fn code(&self, capability: (i32, i32)) -> Code {
        match capability {
            (8, _) => Code::Binary(self.sm_80),
            (9, 0) => Code::Binary(self.sm_90a),
            _ => Code::Ptx(self.ptx),
        }
    }
}

/// The image of a source file.
pub fn image(name: &str) -> Option<&'static Image> {
    IMAGES.iter().find(|image| image.name == name)
}

/// The names of the kernels in an image's PTX.
pub fn entries(ptx: &'static str) -> impl Iterator<Item = &'static str> {
    ptx.split(".entry ").skip(1).filter_map(|rest| rest.split(['(', '\n', ' ']).next())
}

/// The sizes in bytes of a kernel's parameters, in their order, as its PTX has them; nothing where no image has it.
pub fn parameters(kernel: &str) -> Option<Vec<usize>> {
    IMAGES.iter().find_map(|image| {
        let begin = image
            .ptx
            .split(".entry ")
            .skip(1)
            .find_map(|rest| rest.strip_prefix(kernel)?.strip_prefix('('))?;
        let (list, _) = begin.split_once(')')?;
        list.split(".param ")
            .skip(1)
            .map(|parameter| {
                let kind = parameter.split_whitespace().next()?;
                kind.trim_start_matches(|c: char| !c.is_ascii_digit())
                    .parse::<usize>()
                    .ok()
                    .map(|bits| bits / 8)
            })
            .collect()
    })
}
