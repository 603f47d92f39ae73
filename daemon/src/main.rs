//! The binary `forebay`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    forebay::rt::give_memory_back_soon();
    forebay::rt::take_small_pages();
    forebay::command::run()
}
