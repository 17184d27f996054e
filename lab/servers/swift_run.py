# run.py SWIFT_DIR PROGRAM ARGUMENTS: runs a program of Swift with the swift.conf of SWIFT_DIR.
import runpy
import shutil
import sys

from swift.common.utils import set_swift_dir

set_swift_dir(sys.argv[1])
sys.argv = [shutil.which(sys.argv[2])] + sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
