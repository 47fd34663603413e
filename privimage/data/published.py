"""Published image sets: where their files are to be had and with which checksums, or how a person fetches them.

Addresses and checksums are those that the sets' authors publish and that torchvision's loaders hold. A size is given
where it is known for sure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One file of a set.

    ``urls`` are tried in order. ``size`` is in bytes. ``checksum`` is ``md5:`` or ``sha256:`` and hexadecimal digits.
    Whatever is named in ``instead``, a file or a folder, serves in its place. ``unpack`` names the members to take out
    of a zip archive; each lands in the folder under its last name.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None
    checksum: str
    instead: tuple[str, ...] = ()
    unpack: tuple[str, ...] = ()


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
EMNIST_PARTS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
EMNIST_ENDS = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")


def _idx(mirrors: tuple[str, ...], own: str, name: str, size: int | None, md5: str) -> File:
    """A gzipped IDX file of one of several mirrors.

    It may also lie unpacked, be spelt with a dot, or lie where other programs leave it: below the set's ``own`` name.
    """
    packed = f"{name}.gz"
    dotted = name.replace("-idx", ".idx")
    spellings = (packed, name, dotted, f"{dotted}.gz")
    instead = tuple(
        f"{within}{spelling}" for within in ("", f"{own}/raw/", "raw/", f"{own}/", "gzip/") for spelling in spellings
    )
    return File(packed, tuple(f"{mirror}{packed}" for mirror in mirrors), size, f"md5:{md5}", instead[1:])


MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
FASHION_MNIST = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
KMNIST = (
    "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
)

INCEPTION = File(  # the network of the published FID; the checksum is k-diffusion's, which checks it too
    "inception-2015-12-05.pt",
    ("https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",),
    None,
    "sha256:f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
NETWORKS = {"inception": (INCEPTION,)}  # what `download` fetches beside sets of images

PUBLISHED: dict[str, tuple[File, ...] | str] = {
    "mnist": (
        _idx(MNIST, "MNIST", TRAIN_IMAGES, 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        _idx(MNIST, "MNIST", TRAIN_LABELS, 28881, "d53e105ee54ea40749a09fcbcd1e9432"),
        _idx(MNIST, "MNIST", TEST_IMAGES, 1648877, "9fb629c4189551a2d022fa330f9573f3"),
        _idx(MNIST, "MNIST", TEST_LABELS, 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    "fashion-mnist": (
        _idx(FASHION_MNIST, "FashionMNIST", TRAIN_IMAGES, 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _idx(FASHION_MNIST, "FashionMNIST", TRAIN_LABELS, 29515, "25c81989df183df01b3e8a0aad5dffbe"),
        _idx(FASHION_MNIST, "FashionMNIST", TEST_IMAGES, 4422102, "bef4ecab320f06d8554ea6380940ec79"),
        _idx(FASHION_MNIST, "FashionMNIST", TEST_LABELS, 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "kmnist": (
        _idx(KMNIST, "KMNIST", TRAIN_IMAGES, 18165135, "bdb82020997e1d708af4cf47b453dcf7"),
        _idx(KMNIST, "KMNIST", TRAIN_LABELS, None, "e144d726b3acfaa3e44228e80efcd344"),
        _idx(KMNIST, "KMNIST", TEST_IMAGES, None, "5c965bf0a639b31b8f53240b1b52f4d7"),
        _idx(KMNIST, "KMNIST", TEST_LABELS, None, "7320c461ea6c1c855c0b718fb2a4b134"),
    ),
    "emnist": (
        File(
            "gzip.zip",
            ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
            561753746,
            "md5:58c8d27c78d21e728a6bc7b3cc06412e",
            unpack=tuple(f"gzip/emnist-{part}-{end}-ubyte.gz" for part in EMNIST_PARTS for end in EMNIST_ENDS),
        ),
    ),
    "cifar10": (
        File(
            "cifar-10-python.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            170498071,
            "md5:c58f30108f718f92721af3b95e74349a",
            instead=("cifar-10-batches-py", "data_batch_1"),
        ),
    ),
    "cifar100": (
        File(
            "cifar-100-python.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
            169001437,
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
            instead=("cifar-100-python", "train"),
        ),
    ),
    "eurosat": (
        File(
            "EuroSAT.zip",
            (
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                "https://madm.dfki.de/files/sentinel/EuroSAT.zip",
            ),
            None,
            "md5:c8fa014336c82ac7804f0398fcb19387",
            instead=("2750", "EuroSAT", "EuroSAT_RGB", "EuroSAT_RGB.zip", "AnnualCrop"),
        ),
    ),
    "imagenet": (
        "ImageNet is handed out to those who accept its terms: log in at https://image-net.org/download-images.php and "
        "take ILSVRC2012_img_train.tar, and ILSVRC2012_img_val.tar with ILSVRC2012_devkit_t12.tar.gz (unpacked) for "
        "the validation images"
    ),
    "imagenet-downsampled": (
        "Downsampled ImageNet is handed out to those who accept ImageNet's terms: log in at "
        "https://image-net.org/download-images.php and take the batches of one size, train_data_batch_1 to "
        "train_data_batch_10 and val_data, unpacked, with or without the ending .npz"
    ),
    "celeba": (
        "CelebA is handed out for research to those who accept its terms: follow "
        "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and take img_align_celeba.zip, list_eval_partition.txt and, "
        "for labels, list_attr_celeba.txt"
    ),
    "camelyon17": (
        "Camelyon17-WILDS is an archive of 10 GB: follow https://wilds.stanford.edu/get_started/ to "
        "https://worksheets.codalab.org/bundles/0xe45e15f39fb54e9d9e919556af67aabe and unpack it, so that there is the "
        "folder camelyon17_v1.0 with metadata.csv and patches"
    ),
}
