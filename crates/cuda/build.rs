//! With the feature `cuda`: writes the trampolines, compiles the kernels, and makes empty libraries to link against.
use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, exit},
    sync::Mutex,
};

/// Every library that candle or cudarc names to the linker.
const LINKED: [&str; 6] = ["cuda", "cublas", "cublasLt", "curand", "nvrtc", "cudart"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none()
        || env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux")
    {
        return;
    }
    println!("cargo:rerun-if-changed=symbols.txt");
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-env-changed=NVCC");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where output goes"));
    let libraries = out.join("libraries");
    empty_libraries(&libraries);
    kernels_of_candle(&libraries);
    trampolines(&out);
    kernels(&out);
}

/// Libraries of the right names with nothing inside: the linker finds them, needs nothing of them, and leaves them out.
fn empty_libraries(folder: &Path) {
    fs::create_dir_all(folder).expect("the build's folder can be written");
    let target = env::var("TARGET").expect("cargo names the target").replace('-', "_");
    let named = [format!("CC_{target}"), "CC".into()];
    let compiler = named.iter().find_map(|name| env::var(name).ok()).unwrap_or_else(|| "cc".into());
    for name in LINKED {
        let file = folder.join(format!("lib{name}.so"));
        run(Command::new(&compiler).args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-o"]).arg(file));
    }
    println!("cargo:rustc-link-search=native={}", folder.display());
}

/// candle-kernels builds `libmoe.a` and asks for `moe` without saying that it is static. rustc then wants a shared library,
/// and zig, unlike other linkers, takes no other: it gets one, a text that names the archive, which it looks for in the
/// folders that candle-kernels named.
fn kernels_of_candle(folder: &Path) {
    fs::write(folder.join("libmoe.so"), "INPUT(libmoe.a)\n").expect("the build's folder can be written");
}

/// Writes a trampoline for each line of `symbols.txt`, and the table of names.
fn trampolines(out: &Path) {
    let list = fs::read_to_string("symbols.txt").expect("symbols.txt is here");
    let arm = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => false,
        Ok("aarch64") => true,
        other => fail(&format!("there are trampolines for x86_64 and aarch64, and the target is {other:?}")),
    };
    let lines = || list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut code, mut table, mut names) = (String::new(), String::new(), String::new());
    for (slot, line) in lines().enumerate() {
        let (library, name) = line.split_once(' ').expect("a line of symbols.txt: library function");
        let source = match library {
            "driver" => "Source::Of(Library::Driver)",
            "cublas" => "Source::Of(Library::Cublas)",
            "cublasLt" => "Source::Of(Library::CublasLt)",
            "curand" => "Source::Of(Library::Curand)",
            "runtime" => "Source::Runtime",
            other => fail(&format!("symbols.txt: unknown library {other}")),
        };
        writeln!(names, "    ({source}, \"{name}\"),").expect("a string grows");
        let offset = slot * 8;
        // A section each, so that the linker drops those that nothing calls. The second label is the slot's first aim.
        write!(
            code,
            ".pushsection .text.candlewick_cuda.{name}, \"ax\", %progbits\n.balign 16\n\
             .globl {name}\n.hidden {name}\n.type {name}, %function\n{name}:\n"
        )
        .expect("a string grows");
        let jump = if arm {
            format!(
                "adrp x16, candlewick_cuda_slots+{offset}\nadd x16, x16, :lo12:candlewick_cuda_slots+{offset}\n\
                 ldar x16, [x16]\nbr x16\n.Lcandlewick_cuda_{slot}:\nmov x16, #{slot}\nb candlewick_cuda_enter\n"
            )
        } else {
            format!(
                "jmp qword ptr [rip + candlewick_cuda_slots+{offset}]\n.Lcandlewick_cuda_{slot}:\n\
                 mov r11d, {slot}\njmp candlewick_cuda_enter\n"
            )
        };
        write!(code, "{jump}.size {name}, . - {name}\n.popsection\n").expect("a string grows");
        writeln!(table, ".quad .Lcandlewick_cuda_{slot}").expect("a string grows");
    }
    let enter = if arm { ENTER_AARCH64 } else { ENTER_X86_64 };
    let assembly = format!(
        "{code}.pushsection .text.candlewick_cuda_enter, \"ax\", %progbits\n.balign 16\n\
         .type candlewick_cuda_enter, %function\ncandlewick_cuda_enter:\n{enter}\
         .size candlewick_cuda_enter, . - candlewick_cuda_enter\n.popsection\n\
         .pushsection .data.rel.local.candlewick_cuda_slots, \"aw\", %progbits\n.balign 8\n\
         .globl candlewick_cuda_slots\n.hidden candlewick_cuda_slots\n.type candlewick_cuda_slots, %object\n\
         candlewick_cuda_slots:\n{table}.size candlewick_cuda_slots, . - candlewick_cuda_slots\n.popsection\n"
    );
    let rust = format!(
        "/// Library and name of each slot.\nstatic SLOTS: [(Source, &str); {}] = [\n{names}];\n\n\
         std::arch::global_asm!(\nr##\"{assembly}\"##,\nresolve = sym resolve,\n);\n",
        lines().count()
    );
    fs::write(out.join("trampolines.rs"), rust).expect("the build's folder can be written");
}

/// Keeps every register that may hold an argument (of System V's convention), calls `resolve(slot)`, and goes on there.
/// At the entry the stack is 8 bytes off a multiple of 16, as after any call.
const ENTER_X86_64: &str = "\
push rdi
push rsi
push rdx
push rcx
push r8
push r9
push rax
sub rsp, 128
movups [rsp], xmm0
movups [rsp + 16], xmm1
movups [rsp + 32], xmm2
movups [rsp + 48], xmm3
movups [rsp + 64], xmm4
movups [rsp + 80], xmm5
movups [rsp + 96], xmm6
movups [rsp + 112], xmm7
mov edi, r11d
call {resolve}
mov r11, rax
movups xmm0, [rsp]
movups xmm1, [rsp + 16]
movups xmm2, [rsp + 32]
movups xmm3, [rsp + 48]
movups xmm4, [rsp + 64]
movups xmm5, [rsp + 80]
movups xmm6, [rsp + 96]
movups xmm7, [rsp + 112]
add rsp, 128
pop rax
pop r9
pop r8
pop rcx
pop rdx
pop rsi
pop rdi
jmp r11
";

/// The same for AAPCS64: x0 to x8 and q0 to q7, the frame pointer and the return address.
const ENTER_AARCH64: &str = "\
stp x29, x30, [sp, #-224]!
mov x29, sp
stp x0, x1, [sp, #16]
stp x2, x3, [sp, #32]
stp x4, x5, [sp, #48]
stp x6, x7, [sp, #64]
str x8, [sp, #80]
stp q0, q1, [sp, #96]
stp q2, q3, [sp, #128]
stp q4, q5, [sp, #160]
stp q6, q7, [sp, #192]
mov x0, x16
bl {resolve}
mov x16, x0
ldp x0, x1, [sp, #16]
ldp x2, x3, [sp, #32]
ldp x4, x5, [sp, #48]
ldp x6, x7, [sp, #64]
ldr x8, [sp, #80]
ldp q0, q1, [sp, #96]
ldp q2, q3, [sp, #128]
ldp q4, q5, [sp, #160]
ldp q6, q7, [sp, #192]
ldp x29, x30, [sp], #224
br x16
";

/// What each source is compiled to: the ending of the file, and what nvcc is told.
const FORMS: [(&str, &[&str]); 3] = [
    ("sm_80.cubin", &["-cubin", "-gencode=arch=compute_80,code=sm_80"]),
    ("sm_90a.cubin", &["-cubin", "-gencode=arch=compute_90a,code=sm_90a"]),
    ("ptx", &["-ptx", "-gencode=arch=compute_80,code=compute_80"]),
];

/// Compiles `kernels/*.cu` in every form, and lists them. Warnings are errors.
fn kernels(out: &Path) {
    let nvcc = env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let mut sources: Vec<PathBuf> = fs::read_dir("kernels")
        .expect("the folder of the kernels is here")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "cu"))
        .collect();
    sources.sort();
    let work: Vec<_> =
        sources.iter().flat_map(|source| FORMS.iter().map(move |form| (source, form))).collect();
    let queue = Mutex::new(work.iter());
    let threads = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1usize);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("nobody panics with it").next();
                    let Some((source, (ending, arguments))) = next else { break };
                    run(Command::new(&nvcc)
                        .args(["-std=c++17", "-O3", "--Werror", "all-warnings"])
                        .args(*arguments)
                        .arg(source)
                        .arg("-o")
                        .arg(out.join(format!("{}.{ending}", name_of(source)))));
                }
            });
        }
    });
    let mut list = format!("/// Every image, by name.\npub static IMAGES: [Image; {}] = [\n", sources.len());
    for source in &sources {
        let name = name_of(source);
        let file = |ending: &str| format!("concat!(env!(\"OUT_DIR\"), \"/{name}.{ending}\")");
        writeln!(
            list,
            "    Image {{ name: \"{name}\", sm_80: include_bytes!({}), sm_90a: include_bytes!({}), ptx: include_str!({}) }},",
            file("sm_80.cubin"),
            file("sm_90a.cubin"),
            file("ptx")
        )
        .expect("a string grows");
    }
    list.push_str("];\n");
    fs::write(out.join("images.rs"), list).expect("the build's folder can be written");
}

fn name_of(source: &Path) -> String {
    source.file_stem().expect("a file with an ending has a name").to_string_lossy().into_owned()
}

fn run(command: &mut Command) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => fail(&format!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => fail(&format!(
            "{command:?}: {error}; build with `npm run build:cuda`, which finds or fetches nvcc"
        )),
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    exit(1);
}
